package store

import (
	"bytes"
	"runtime"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

func fuzzMachine(t testing.TB) *machine {
	m := newMachine("c1")
	return m
}

func exampleRecord(t testing.TB) []byte {
	service := &api.Service{Id: "a", Spec: &api.ServiceSpec{Annotations: &api.Annotations{Name: "web"}}}
	record, err := proto.Marshal(&api.LogRecord{Transactions: []*api.Transaction{
		{RequestId: "r1", ProposedAt: timestamppb.New(time.Unix(1, 0)), Changes: []*api.Change{
			{Action: api.ChangeAction_CHANGE_ACTION_CREATE, Object: &api.StoredObject{Object: &api.StoredObject_Service{Service: service}}},
			{Action: api.ChangeAction_CHANGE_ACTION_CHECK, Object: &api.StoredObject{Object: &api.StoredObject_Node{Node: &api.Node{}}}},
		}},
		{RequestId: "r2", Changes: []*api.Change{
			{Action: api.ChangeAction_CHANGE_ACTION_DELETE, ExpectedVersion: 1, Object: &api.StoredObject{Object: &api.StoredObject_Service{Service: service}}},
		}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

// FuzzApply: whatever the log holds, two managers make the same of it (I3), and an entry that is refused as a whole changes
// nothing that readers see.
func FuzzApply(f *testing.F) {
	f.Add(exampleRecord(f), exampleRecord(f))
	f.Fuzz(func(t *testing.T, first, second []byte) {
		a, b := fuzzMachine(t), fuzzMachine(t)
		for i, entry := range [][]byte{first, second} {
			before := a.view()
			_, batch, err := a.apply(uint64(i+1), entry)
			_, again, errAgain := b.apply(uint64(i+1), entry)
			if (err == nil) != (errAgain == nil) || len(batch.Changes) != len(again.Changes) {
				t.Fatalf("two managers differ: %v, %v", err, errAgain)
			}
			if err != nil {
				if a.view() != before {
					t.Fatal("a bad entry was published")
				}
				return
			}
		}
		_, hashA, errA := a.freeze().hash()
		_, hashB, errB := b.freeze().hash()
		if errA != nil || errB != nil || hashA != hashB {
			t.Fatalf("two managers differ after the same entries: %v, %v", errA, errB)
		}
	})
}

// FuzzRestore: whatever a leader sends or the disk holds as a snapshot, it is refused or gives the same snapshot again, and takes
// memory in proportion to its size.
func FuzzRestore(f *testing.F) {
	m := fuzzMachine(f)
	if _, _, err := m.apply(1, exampleRecord(f)); err != nil {
		f.Fatal(err)
	}
	m.members.load([]*api.Member{{RaftId: 7, NodeId: "n7", Address: "127.0.0.1:2377"}}, []uint64{8})
	encoded, err := m.freeze().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded, uint64(1))
	f.Fuzz(func(t *testing.T, encoded []byte, index uint64) {
		before := allocated()
		once, ok := restored(t, encoded, index)
		if !ok {
			return
		}
		if used, most := allocated()-before, uint64(4<<20+len(encoded)*4096); used > most {
			t.Fatalf("%d bytes took %d bytes of memory, more than %d", len(encoded), used, most)
		}
		again, err := once.freeze().encode()
		if err != nil {
			t.Fatal(err)
		}
		twice, ok := restored(t, again, index)
		if !ok {
			t.Fatal("what was written can't be read")
		}
		_, a, errA := once.freeze().hash()
		_, b, errB := twice.freeze().hash()
		if errA != nil || errB != nil || a != b {
			t.Fatalf("a restored snapshot differs: %v, %v", errA, errB)
		}
	})
}

// restored returns a machine with the state of a snapshot of its own cluster at an index, if it is one.
func restored(t *testing.T, encoded []byte, index uint64) (*machine, bool) {
	m := fuzzMachine(t)
	b, err := readState(bytes.NewReader(encoded), m.clusterID, index)
	if err != nil {
		return nil, false
	}
	if err := m.restore(b); err != nil {
		t.Fatal(err)
	}
	if m.view().index != index {
		t.Fatalf("restored index %d as %d", index, m.view().index)
	}
	return m, true
}

// allocated is how many bytes this process has ever allocated.
func allocated() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.TotalAlloc
}
