// Package statsbroker asks the nodes what their tasks have used.
//
// It keeps nothing and chooses no tasks: package control finds those that are meant.
//
//	tasks, by node --ReadTaskStats--> node --------> their statistics, with what only managers know
//	                                  node (down) -> gap, without asking
//	                                  node (silent) -> gap, after answerTimeout
//
// Every node that has some of the tasks is asked once, maxAsked at the same time, over a connection of its own. A node that can't be had
// gives one gap with the reason, and never holds up the others for longer than answerTimeout. A task that ended meanwhile is left out.
//
// A Broker is immutable and safe for concurrent use. A read owns its goroutines and waits for them.
package statsbroker
