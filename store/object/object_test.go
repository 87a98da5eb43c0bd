package object

import (
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
)

// A kind that is added to api.StoredObject must be added here, too.
func TestKinds_AreTheFieldsOfStoredObject(t *testing.T) {
	fields := (&api.StoredObject{}).ProtoReflect().Descriptor().Fields()
	if fields.Len() != len(Kinds()) {
		t.Fatalf("%d fields, %d kinds", fields.Len(), len(Kinds()))
	}
	for _, k := range Kinds() {
		field := fields.ByNumber(protoreflect.FieldNumber(k))
		if field == nil || string(field.Name()) != strings.ReplaceAll(k.String(), " ", "_") {
			t.Errorf("%v is not field %d", k, k)
			continue
		}
		o := New(k, "id")
		if KindOf(o) != k || o.GetId() != "id" || !k.Valid() {
			t.Errorf("%v: New makes a %v with id %q", k, KindOf(o), o.GetId())
		}
		SetMeta(o, &api.Meta{Version: 7})
		if o.GetMeta().GetVersion() != 7 {
			t.Errorf("%v: SetMeta does nothing", k)
		}
		encoded, err := proto.Marshal(Wrap(o))
		if err != nil {
			t.Fatal(err)
		}
		var decoded api.StoredObject
		if err := proto.Unmarshal(encoded, &decoded); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(Unwrap(&decoded), o) {
			t.Errorf("%v: got %v back", k, Unwrap(&decoded))
		}
		if !HasIndex(k, IndexID) || HasIndex(k, Indexes) {
			t.Errorf("%v: indexes", k)
		}
	}
	if Unwrap(nil) != nil || Unwrap(&api.StoredObject{}) != nil || Unwrap(&api.StoredObject{Object: &api.StoredObject_Task{}}) != nil {
		t.Error("Unwrap made something of nothing")
	}
	if Kind(0).Valid() || (MaxKind + 1).Valid() || New(0, "x") != nil || KindOf(nil) != 0 || Kind(99).String() != "kind(99)" {
		t.Error("an unknown kind is taken for a kind")
	}
}

func TestNewID(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := NewID()
		if !ValidID(id) || seen[id] {
			t.Fatalf("id %q", id)
		}
		seen[id] = true
	}
	for _, id := range []string{"", "short", strings.Repeat("A", IDLength), strings.Repeat("a", IDLength+1), strings.Repeat("a", IDLength-1) + "\x00"} {
		if ValidID(id) {
			t.Errorf("%q is taken for an id", id)
		}
	}
}

func TestAppendValues(t *testing.T) {
	container := &api.ContainerSpec{Secrets: []*api.SecretReference{{SecretId: "a"}, {SecretId: "b"}, {SecretId: "a"}, {}}}
	task := &api.Task{Id: "t", ServiceId: "s", Slot: 2, NodeId: "n", Spec: &api.TaskSpec{Container: container}}
	node := &api.Node{
		Id: "n", Description: &api.NodeDescription{Hostname: "host"}, Spec: &api.NodeSpec{Annotations: &api.Annotations{Name: "given"}},
	}
	for _, c := range []struct {
		o    Object
		i    Index
		want []string
	}{
		{task, IndexID, []string{"t"}},
		{task, IndexName, nil},
		{task, IndexService, []string{"s"}},
		{task, IndexNode, []string{"n"}},
		{task, IndexSlot, []string{SlotKey("s", 2)}},
		{task, IndexSecret, []string{"a", "b"}},
		{task, IndexConfig, nil},
		{task, Indexes, nil},
		{&api.Task{Id: "t"}, IndexSlot, nil},
		{node, IndexName, []string{"host", "given"}},
		{node, IndexNode, nil},
		{&api.ServiceRevision{Id: "r", ServiceId: "s"}, IndexService, []string{"s"}},
	} {
		if got := AppendValues(nil, c.o, c.i); !slices.Equal(got, c.want) {
			t.Errorf("%v of a %v: %q, want %q", c.i, KindOf(c.o), got, c.want)
		}
	}
}

func TestEncodeID_IsBase36(t *testing.T) {
	for _, n := range []*big.Int{
		big.NewInt(0), big.NewInt(35), big.NewInt(36), new(big.Int).Lsh(big.NewInt(1), 64),
		new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 128), big.NewInt(1)),
	} {
		want := n.Text(36)
		want = strings.Repeat("0", IDLength-len(want)) + want
		hi, lo := new(big.Int).Rsh(n, 64).Uint64(), new(big.Int).And(n, new(big.Int).SetUint64(math.MaxUint64)).Uint64()
		if got := encodeID(hi, lo); got != want {
			t.Errorf("%v: %s, want %s", n, got, want)
		}
	}
}
