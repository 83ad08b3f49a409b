"""The console of dead letters: pages for people and a JSON API, over the same service as the shell (dlq/service.py).

serve       the web server, until it is stopped
app         all routes, put together
rights      roles, rights, and what a route needs
gate        the one place that lets a request in: Host, Origin, token or session, role, CSRF token; headers of every answer
sessions    tokens, browsers that are signed in, and how often a token may be wrong
answers     how errors and documents are answered, as JSON or as a page
desk        what pages and API share: the index, the filters of URLs, the overview
api         the JSON API under /api
pages       the pages; templates and static beside them
payload     payloads for people: pretty, raw, hex
charts      bars of a chart, as numbers
"""
