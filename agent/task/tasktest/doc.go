// Package tasktest has a fake [task.Executor] and the contract suite that every executor passes.
//
// The fake keeps everything in memory: it is an executor whose containers are entries of a map. Like the real one, it outlives
// the Manager that uses it, as containers outlive a daemon.
//
// Both understand tasks whose container has these arguments, as the program of the suite's image does:
//
//	exit N       ends at once with the exit code N
//	serve        runs until it is asked to end, and then ends with the exit code 0
//	stubborn     runs until it is killed
//
// A Fake is safe for concurrent use.
package tasktest
