"""A web page to stylize, explore and compare pictures, and to look up layers.

`work` does the computing and does not know Gradio. Each file of `tabs` holds one tab of the page: its components and
what they do. `tab` holds what the tabs share, `page` puts them together, and `server` serves the page.
"""
