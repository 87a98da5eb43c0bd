// Package logdriver reads what a service says of its log: managers when they admit it, nodes when they obey it.
//
// It writes no logs. An unset driver is file, with its defaults.
//
// Errors are sentences for people without a kind; they name what is allowed.
package logdriver
