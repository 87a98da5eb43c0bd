// Package expand fills in the templates of services, secrets and configs: {{.Node.Hostname}} and the like, as Docker Swarm has them.
//
// It is Go's text/template with less in it. A template comes from whoever may write services, and is expanded on every node that runs
// one: what it takes is bounded, whatever it says.
//
//	Check: the text alone ----> Expand: with what is known of the task
//
// Invariants:
//
//	E1  Expansion ends: there is no recursion ({{template}}, {{block}} and {{define}} are refused) and no loop but over a field
//	    ({{range .Service.Labels}}), in which there is none.
//	E2  What all functions of a template return, and the result, have MaxSize bytes at most each; all functions together, 16 times that.
//	E3  A field, label, secret or config that is not there is an error, not an empty text.
//	E4  No error repeats a value: it names what was asked for.
//
// Functions are safe for concurrent use. Errors are for people, and have the kind fault.Invalid.
package expand
