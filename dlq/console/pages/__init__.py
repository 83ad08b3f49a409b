"""The pages, rendered here, whole without JavaScript.

signing  signing in and out, the theme, and the files beside the pages
looking  overview, groups, group, search, audit
pipeline the plan, the partitions, the workers
record   one record; revealed, downloaded
edit     one record edited by hand
replays  preview and mend, replay; jobs
acts     acknowledge, resolve, park
"""
