package store

import (
	"context"

	"go.etcd.io/raft/v3/raftpb"

	"github.com/skep-io/skep/api"
)

// Transport carries Raft messages to other members. It may lose, delay and reorder them; what it delivers is what was sent,
// to the member that it was sent to.
//
// Life: Open gives SetMembers the members that the disk knows; Run starts it; SetMembers and Send are called from then on,
// one at a time; Run ends with its context.
type Transport interface {
	// Run works until ctx ends, and returns when nothing of it runs any more.
	Run(ctx context.Context, sink Sink) error
	// SetMembers says who the members are; the others are forgotten. It must not block. The messages are immutable.
	SetMembers(members []*api.Member)
	// Send takes messages for the members in their To. It must not block; it drops what does not fit. The messages must not
	// be changed. A MsgSnap comes without the data of its snapshot, which the sink has, and is reported to it when it was sent or
	// lost.
	Send(messages []*raftpb.Message)
}

// Sink takes what a Transport finds out. Its methods do not block for long, but for Snapshot.
type Sink interface {
	// Snapshot returns the data of a snapshot, from the disk. There is none when a newer one has taken its place.
	Snapshot(meta *raftpb.SnapshotMetadata) ([]byte, error)
	// Unreachable says that messages to a member were lost.
	Unreachable(raftID uint64)
	// SnapshotSent says how sending a snapshot ended.
	SnapshotSent(raftID uint64, ok bool)
	// Removed says that another member refused this one because it was removed from the group.
	Removed()
}
