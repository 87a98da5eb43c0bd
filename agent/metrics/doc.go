// Package metrics shows Prometheus what the tasks of this node use, and how fast they start.
//
// It keeps nothing but a histogram: what tasks use is read when somebody asks, from where `skep stats` reads it. Who asks, and by which
// door, is the daemon's business.
//
//	scrape ──Collect──> tasks that run here ──Stats──> container runtime
//	executor ──Launched──> histogram
//
// Names are cAdvisor's, with skep_task in the place of container. The labels are bounded by the services and their slots: a task is web.1
// whoever is in that slot, and where an update has two there for a moment, the newer one is shown. Its counters begin anew with each
// task, as counters do.
//
// Concurrency: a Collector is safe for concurrent use.
//
// Sources: Prometheus' writing exporters and metric naming; cAdvisor's docs/storage/prometheus.md.
package metrics
