package store

import (
	"io"
	"testing"

	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
	"github.com/skep-io/skep/store/wal"
)

// The commit index on disk may be older than the snapshot, because it is written with the next entries. A manager that
// crashed in between must start again (I2); the simulation found it with a planted bug.
func TestOpen_AcceptsACommitIndexOlderThanTheSnapshot(t *testing.T) {
	mem := vfs.NewMem()
	defer mem.Close()
	disk := Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	if err := Bootstrap(disk, "c1", &api.Member{RaftId: 1, NodeId: "m1", Address: "m1:1"}); err != nil {
		t.Fatal(err)
	}
	w, _, err := wal.Open(disk.wal(), disk.KEK)
	if err != nil {
		t.Fatal(err)
	}
	entry := &raftpb.Entry{Index: proto.Uint64(2), Term: proto.Uint64(2), Type: raftpb.EntryNormal.Enum()}
	hard := &raftpb.HardState{Term: proto.Uint64(2), Vote: proto.Uint64(1), Commit: proto.Uint64(1)}
	if err := w.Save(wal.Batch{HardState: hard, Entries: []*raftpb.Entry{entry}}); err != nil {
		t.Fatal(err)
	}
	data, err := proto.Marshal(&api.StoreSnapshot{ClusterId: "c1", Index: 2})
	if err != nil {
		t.Fatal(err)
	}
	meta := &raftpb.SnapshotMetadata{Index: proto.Uint64(2), Term: proto.Uint64(2), ConfState: &raftpb.ConfState{Voters: []uint64{1}}}
	if err := w.WriteSnapshot(meta, func(to io.Writer) error { _, err := to.Write(data); return err }); err != nil {
		t.Fatal(err)
	}
	if err := w.Compact(meta, 2); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cluster.wal.Close(); err != nil {
		t.Fatal(err)
	}
}
