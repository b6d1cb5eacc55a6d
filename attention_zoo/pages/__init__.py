"""Pages in a browser, served on this machine: they need the extra ``pages``, and no other command imports them.

A page is a class with the interface of `attention_zoo.pages.server.Page`: its ``name`` is the folder of its files in
``static``, whose ``index.html`` is served at ``/``, and ``routes()`` returns what it answers below ``/api/``. All files
in ``static`` are served below ``/static/``, those of all pages together being in ``static/common``. What a page needs
of the model it asks for through `attention_zoo.pages.turns.Turns`; errors are an `InputError`, which the server turns
into ``{"error": message}``. `attention_zoo.pages.server.serve` listens until Ctrl-C.
"""
