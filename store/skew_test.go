package store_test

import (
	"bytes"
	"errors"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/storetest"
)

// Fields of a newer version survive a manager that does not know them: in its log, its snapshots, and objects that it changes.
func TestStore_KeepsFieldsOfANewerVersion(t *testing.T) {
	const unknown = 10000 // no message has a field of that number
	newer := protowire.AppendString(protowire.AppendTag(nil, unknown, protowire.BytesType), "from a newer version")
	o := service("a", "web")
	o.ProtoReflect().SetUnknown(newer)
	o.Spec.ProtoReflect().SetUnknown(newer)
	s := storetest.New(t)
	storetest.Create(t, s, o)
	state := stateOf(t, s)
	encoded, err := proto.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	received := &api.StoreSnapshot{}
	if err := proto.Unmarshal(encoded, received); err != nil {
		t.Fatal(err)
	}
	if err := s.Restore(received); err != nil {
		t.Fatal(err)
	}
	err = update(t, s, func(tx store.Tx) error {
		found, err := store.Get[*api.Service](tx, "a")
		if err != nil {
			return err
		}
		found = proto.CloneOf(found)
		found.SpecVersion++
		return tx.Update(found)
	})
	if err != nil {
		t.Fatal(err)
	}
	got := storetest.Get[*api.Service](t, s, "a")
	if !bytes.Equal(got.ProtoReflect().GetUnknown(), newer) || !bytes.Equal(got.GetSpec().ProtoReflect().GetUnknown(), newer) {
		t.Errorf("the fields are gone: %v", got)
	}
}

// An object of a kind that this version does not know can't be taken in by leaving it out: the state is refused as a whole.
func TestRestore_RefusesAKindOfANewerVersion(t *testing.T) {
	stored := &api.StoredObject{}
	stored.ProtoReflect().SetUnknown(protowire.AppendBytes(protowire.AppendTag(nil, 10000, protowire.BytesType), nil))
	s := storetest.New(t)
	storetest.Create(t, s, service("a", "web"))
	err := s.Restore(&api.StoreSnapshot{ClusterId: "testcluster", Index: 9, Objects: []*api.StoredObject{stored}})
	if !errors.Is(err, store.ErrInvalid) {
		t.Errorf("got %v", err)
	}
	if got := ids(storetest.List[*api.Service](t, s)); got != "a" {
		t.Errorf("services afterwards: %s", got)
	}
}
