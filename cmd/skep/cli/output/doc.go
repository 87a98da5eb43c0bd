// Package output writes lists and objects the way Docker's commands do: tables, Go templates, JSON.
//
// It is not a terminal library: progress is drawn by package progress. It knows no object of the cluster; callers give it
// plain structs whose exported fields are the names that templates use.
//
// A list takes a --format: "table", "table TEMPLATE", "json" (one object a line), or TEMPLATE. A header is a row whose
// fields are the column titles, so that the same template writes both.
//
// Invariants:
//
//	I1  A table has no control character beside line ends; templates and JSON give the exact values.
//
// Concurrency: all functions may be called from several goroutines, one for each writer.
//
// Errors: those of templates name the template's text and are of the kind Invalid; others are the writer's.
package output
