// Package gossip finds out within seconds that the machine of another node is gone: nodes probe each other by SWIM (hashicorp/memberlist),
// directly, and by way of others, over UDP and TCP on Port.
//
// All that it says is a hint. Every node has the keys, so any may lie, and messages get lost; whoever acts on a hint asks by a way
// of its own. Nothing else travels by it: neither what is wanted of nodes nor what they are.
//
//	member silent --memberlist--> dead --dial Port--> no answer: Gone. While the node counts as alive (Asks): again in a second
//	                               |          |
//	                               |          +--> refused: the machine lives, and so may its containers: again in a second
//	                               +--> alive again: forgotten
//
// A node that others can't reach, such as one behind a router, never is a member, and one whose Port is taken isn't either: for
// them there are no hints.
//
// A Gossip is safe for concurrent use. Run is called once.
package gossip
