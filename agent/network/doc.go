// Package network connects the containers of this node to each other and to the outside, and publishes their ports on the node.
//
// It is node-local: it knows nothing of other nodes, and nothing of names. Networks that span nodes are another layer.
//
//	container A            container B
//	  eth0                   eth0            one address each, from the bridge's subnet
//	   |                      |
//	  skv…(veth)             skv…(veth)      anti-spoofing: only the container's own address passes
//	   +--------- skep0 ------+              the bridge; its address is the containers' gateway
//	                |
//	             routing                     table ip skep: who may talk to whom, and translation
//	                |
//	           the node's network
//
// What passes:
//
//	container -> outside            yes, as the node (masquerade), but not to 169.254.0.0/16: clouds give credentials there
//	container -> container          yes, on one node: the bridge is one segment
//	container -> the node itself    no, except published ports
//	outside   -> container          no, except published ports; the client's address stays
//	the node  -> container          yes, also to a published port on 127.0.0.1
//
// Rates: a token bucket at the node's end of a veth pair holds what the container receives, one at its own end what it sends. Both go
// with the interfaces, and need no record: they stay when the daemon is restarted.
//
// Life of an attachment:
//
//	Restore (once) -> Reserve: hold the ports, lease an address, write it down -> Attach: rewrite the rules, make the veth pair
//	-> Detach: the reverse -> Close (once): let go of the ports, for the next Restore to hold again
//
// Invariants:
//
//	I12  No two containers of the node have the same address, and no two publish the same port of the node.
//	I15  Nothing outlives its owner: Detach removes the veth pair, the rules and the lease; Restore does so for those who are gone.
//	N1   The rules are always the whole truth: they are derived from the leases and replaced in one transaction.
//	N2   A container sends nothing before its rules are in force: an interface that they don't know may not send.
//	N3   No rule takes a port from a process of the node, sshd and the managers' included: a socket of ours is bound to a
//	     published port from before its rule is there until after it is gone. What was published before a restart stays.
//
// Concurrency: a Network is safe for concurrent use, if for one container Reserve, Attach and Detach are called one at a time. Rules are written, and
// interfaces made and removed, without its mutex: the kernel takes milliseconds for each, and many containers begin and end at once. Lock order:
// Network.enforcing before Network.mu. It uses the network namespace of the calling thread, which is the
// daemon's in production, and starts no goroutines.
//
// Errors: [ErrOverlap], [ErrFull] and [ErrPublished]; the last two are temporary (fault.Unavailable). A port that a process of the
// node uses is an error of the kind fault.Precondition: Skep doesn't wait for what isn't its own.
//
// A lease is the file <dir>/<id>.json (mode 0600): {"version":1,"address":"172.31.240.2","ports":[{"protocol":"tcp",
// "published":8080,"target":80}]}. It need not survive a crash of the machine, which ends the containers too, so it is not
// synced. The file <dir>/forwarding says that it was Skep that made this machine forward packets, so that Skep also keeps it
// from forwarding for others.
//
// Needs nftables with NAT (Linux 5.2 or newer), and neither the nft nor the ip program.
package network
