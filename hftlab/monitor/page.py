"""A summary as a page of its own: one file that opens anywhere, with no network."""

from __future__ import annotations

import html

from hftlab.monitor.summary import SessionSummary

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}"
    "th{text-align:left;padding-right:1.5rem;font-weight:600}h1{font-size:1.4rem}"
)


def page(summary: SessionSummary, title: str, more: str = "") -> str:
    """HTML with the summary's lines, then ``more`` (HTML, as it is), then its figure; 5 MB with plotly.js."""
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in summary.lines())
    figure = summary.figure().to_html(full_html=False, include_plotlyjs=True, config={"displayModeBar": False})
    return (
        f"<!doctype html><html lang='en'><head><meta charset='utf-8'><title>hftlab: {html.escape(title)}</title>"
        f"<style>{_STYLE}</style></head><body>"
        f"<h1>{html.escape(title[:1].upper() + title[1:])}</h1><ul>{lines}</ul>{more}{figure}</body></html>"
    )
