"""Metrics, health and logs. `metric_defs` has the names, `metrics` the interface, `server` the pages over HTTP."""
