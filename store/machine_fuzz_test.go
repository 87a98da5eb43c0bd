package store

import (
	"bytes"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

func fuzzMachine(t testing.TB) *machine {
	m, err := newMachine("c1")
	if err != nil {
		t.Fatal(err)
	}
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

// FuzzRestore: a snapshot that can be restored gives the same snapshot again; what is no snapshot is refused.
func FuzzRestore(f *testing.F) {
	m := fuzzMachine(f)
	if _, _, err := m.apply(1, exampleRecord(f)); err != nil {
		f.Fatal(err)
	}
	encoded, err := m.freeze().encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(encoded)
	f.Fuzz(func(t *testing.T, encoded []byte) {
		once, ok := restored(t, encoded)
		if !ok {
			return
		}
		again, err := once.freeze().encode()
		if err != nil {
			t.Fatal(err)
		}
		twice, ok := restored(t, again)
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

// restored returns a machine with the state of a snapshot of its own cluster, if it is one.
func restored(t *testing.T, encoded []byte) (*machine, bool) {
	m := fuzzMachine(t)
	header := &api.StoreSnapshot{}
	if proto.Unmarshal(encoded, header) != nil {
		return nil, false
	}
	b, err := readState(bytes.NewReader(encoded), m.clusterID, header.GetIndex())
	if err != nil {
		return nil, false
	}
	if err := m.restore(b); err != nil {
		t.Fatal(err)
	}
	return m, true
}
