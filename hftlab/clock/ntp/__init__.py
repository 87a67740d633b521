"""NTP: exchanges with servers, which of them to believe, and what they say of UTC."""
