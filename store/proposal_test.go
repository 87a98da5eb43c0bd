package store

import (
	"errors"
	"strings"
	"testing"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/vfs"
)

// A proposal that reaches the loop when it does not lead any more was not applied, and says so.
func TestGroup_RefusesWithoutLeadership(t *testing.T) {
	mem := vfs.NewMem()
	defer mem.Close()
	disk := Disk{FS: mem, Dir: "/raft", KEK: seal.NewKey(), Source: seal.SourceKeyFile}
	if err := Bootstrap(disk, "c1", &api.Member{RaftId: 1, NodeId: "m1", Address: "m1:1"}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(Config{Disk: disk})
	if err != nil {
		t.Fatal(err)
	}
	defer s.cluster.wal.Close()
	if s.KeySource() != seal.SourceKeyFile {
		t.Errorf("key source %v", s.KeySource())
	}
	first := &proposal{prepared: prepared{requestID: "r", encoded: []byte("x")}, done: make(chan outcome, 1)}
	second := &proposal{prepared: prepared{requestID: "r", encoded: []byte("x")}, done: make(chan outcome, 1)}
	s.cluster.proposals <- second
	if err := s.cluster.group(first); err != nil {
		t.Fatal(err)
	}
	for _, p := range []*proposal{first, second} {
		var notLeader *NotLeaderError
		if o := <-p.done; !errors.As(o.err, &notLeader) || notLeader.Uncertain {
			t.Errorf("got %v", o.err)
		}
	}
	if len(s.cluster.pending) != 0 {
		t.Errorf("%d proposals are still pending", len(s.cluster.pending))
	}
}

func TestErrors_SayWhatAndWhere(t *testing.T) {
	tests := []struct {
		err    error
		is     error
		within string
	}{
		{&NotLeaderError{}, ErrNotLeader, "no leader is known"},
		{&NotLeaderError{LeaderID: "n2", LeaderAddr: "10.0.0.2:2377", Uncertain: true}, ErrNotLeader, "may or may not have been applied; the leader is n2 at 10.0.0.2:2377"},
		{&DuplicateError{RequestID: "r1", Index: 7}, ErrDuplicate, "request r1: the request was applied before, at index 7"},
		{&LimitError{What: "service x", Size: 3, Limit: 2}, ErrTooLarge, "service x is 3 bytes, but the limit is 2"},
	}
	for _, test := range tests {
		if !errors.Is(test.err, test.is) || errors.Is(test.err, ErrStopped) || !strings.Contains(test.err.Error(), test.within) {
			t.Errorf("%v", test.err)
		}
	}
	if got := (Ref{object.KindSecret, "x"}).String() + " " + ActionUpdate.String() + " " + Action(0).String(); got != "secret x update none" {
		t.Errorf("got %s", got)
	}
}
