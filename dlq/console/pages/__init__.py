"""The pages, rendered here, whole without JavaScript.

signing  signing in and out, the theme, and the files beside the pages
looking  overview, groups, group, search, audit
record   one record; revealed, downloaded
replays  preview and mend, replay; jobs
acts     acknowledge, resolve, park
"""
