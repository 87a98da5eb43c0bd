// Package images gets the images of this node's tasks from the nodes that have them, and hands its own to others.
//
// It stores nothing itself (package image does) and asks no registry.
//
//	Acquire: in the store? --yes--> unpacked, leased
//	           | no
//	           v
//	         Locate (a manager says who has it) -> Fetch from the first holder -> from the next, ... -> unpacked, leased
//
//	GetBlob:  a peer asks for a blob that belongs to an image -> chunks
//
// Invariants: M1, a peer is not trusted: the store checks every byte against its digest. M2, what one peer sent is not asked
// again of the next: the store goes on where it stopped. M3, a node serves a bounded number of peers at a time.
//
// Peer and Server are safe for concurrent use.
//
// Errors: fault.NotFound when no node has the image, fault.Unavailable when it could not be had just now.
package images
