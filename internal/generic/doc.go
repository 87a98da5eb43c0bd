// Package generic bounds generic resources, which nodes have and services reserve.
//
// A daemon checks its flags by these limits, and the managers what nodes and services say: the scheduler searches all of it for each
// task that wants some, and a kind becomes part of the name of a variable in a task's environment.
package generic
