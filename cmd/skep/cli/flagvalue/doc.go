// Package flagvalue reads the values of command-line flags: sizes, decimals, ports, secrets, mounts, variables, filters.
//
// Each type is a pflag.Value whose Type is Docker's word for it, and whose errors are Docker's where Docker has the flag.
// It does no I/O except [ReadEnv] and [OpenFile], and knows nothing of commands.
//
// Concurrency: values belong to one command line.
//
// Errors: all are for the person who typed the value, and say what to type. Those of [ReadEnv] and [OpenFile] are faults
// of the kinds Invalid and NotFound.
package flagvalue
