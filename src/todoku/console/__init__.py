"""The operator's console: a web page, and the HTTP service that serves it and forwards to the services.

It takes part in no event, owns no database, and no service needs it.
"""
