// Command sim runs the store of five managers in one goroutine and in virtual time, while disks, network, clocks, processes
// and memberships fail as a seed says, and checks what must hold whatever fails. The same seed gives the same run.
//
//	go run ./e2e/sim -seed 1 -seeds 12 -time 10m -workers 2   # two simulated hours; "make sim"
//	go run ./e2e/sim -seed 7 -time 10m                        # repeats a run, as a failure prints it
//	go run ./e2e/sim -bugs                                    # plants bugs, each of which must be found
//
// It exits with status 1 when an invariant does not hold.
//
// # What is real
//
// Everything in package store and below it: the state machine, the log and snapshots on disk, sealing, keys, membership, reads
// and watches. A store.Player plays the loop that store.Run otherwise runs in goroutines; the file system is a vfs.Mem, which
// knows what a loss of power leaves. The network, the clients and the clock are the simulation's.
//
//	clients --Propose, Barrier--> node (a store.Player) --Send--> network --Receive--> node ...
//	                               |  ^ Tick, Finish
//	                          Do   v  |
//	                         disk (faults over vfs.Mem)        all driven by world's queue of events
//
// # What fails
//
// The nemesis does one of the faults in nemesis.go every few seconds: crashes with and without loss of power, also in the
// middle of any write; blackouts; partitions in both or one direction; lost, late, doubled and reordered messages; pauses;
// ticks and clocks that are wrong; slow, stuck, full, failing and lost disks; a flipped byte at rest; managers that leave and
// join again; transfers of leadership; changes of the data key and the key-encryption key. After every two and a half minutes
// all faults end, and the group must come to rest.
//
// # What is checked
//
//   - I1: the history of each key is linearizable (porcupine; not knowing is a failure), and no request takes effect twice.
//   - I2: what was acknowledged is there in the end; no term has two leaders; a manager can start from its disk.
//   - I3: managers that applied the same index have the same state.
//   - I4: a watcher sees exactly the changes after its start, in order, also when it resumes after a restart.
//   - I11: no disk ever holds a secret or the key-encryption key in clear, and a replaced key opens nothing.
//   - Q1: when faults end, a leader takes writes within ten election time-outs.
//   - Q3: then everybody is a member again within half a minute, with an empty disk if theirs was lost.
//
// The checks are checked by planting bugs (bugs.go) at the edges of the simulation; each must be found within an hour of
// simulated time.
//
// # Rules for who changes it
//
// Nothing may depend on the order of a map, on real time, or on random numbers other than the world's. The library's random
// numbers come from crypto/rand, whose reader the world replaces for the whole process: so a process runs one world at a time,
// and more of them need more processes (-workers).
package main
