"""A web page to stylize, explore and compare pictures, and to look up layers.

`work` does the computing, without Gradio. Each file of `tabs` holds one tab: its components and their events. `tab` has
the base class of the tabs, `page` assembles them, and `server` serves the page.
"""
