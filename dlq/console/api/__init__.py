"""The JSON API: everything that the pages do, with an OpenAPI document at /api/openapi.json.

shapes   what answers look like
reading  overview, groups, letters, jobs, audit
acting   acknowledge, resolve, park, reveal, preview, replay, pause, resume, cancel
exports  every list as CSV or as a JSON object per line
"""
