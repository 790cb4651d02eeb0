"""A web page to look and try with: stylize, explore, compare, layers.

`work` does what the page asks for and knows no page; `fragments` writes what it comes to as HTML; `page` lays the page
out with Gradio; `server` serves it, to this machine alone unless it is told otherwise.
"""
