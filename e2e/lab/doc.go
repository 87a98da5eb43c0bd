// Package lab makes several machines of one: each [Machine] has its own network, pid, mount, host-name and ipc
// namespaces and its own daemon, and they are joined by a [Network] that exists in a namespace of its own.
//
// It is for the tests, the demo and the benchmarks. It is not a way to run a real cluster.
//
//	Network  --NewMachine-->  Machine (up, nothing runs)
//	Machine  --Start-->  daemon runs   --Kill-->  nothing runs, containers go on   --Start-->  …
//	Machine  --PowerOff-->  every process of the machine is gone at once, its disk stays   --PowerOn-->  up again
//	Network  --Close-->  no process, namespace, mount or cgroup is left
//
// A machine is an init process in the new namespaces, which is this same program started again: a program that uses the
// package calls [Main] first of all. Killing the init process kills all that runs on the machine, as pulling the plug would.
//
// Concurrency: a Network and its machines belong to one goroutine, but for Exec and Dial, which any may call.
package lab
