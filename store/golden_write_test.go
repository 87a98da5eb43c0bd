package store_test

import (
	"archive/zip"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/store"
	"github.com/skep-io/skep/store/object"
	"github.com/skep-io/skep/store/seal"
	"github.com/skep-io/skep/store/storetest"
)

// goldenRequest is a request that golden data remember.
const goldenRequest = "golden-request"

var goldenDir = flag.String("golden", "", "keep the golden data that this version writes in this directory, see testdata/golden/README.md")

// What this version writes, it reads. With -golden, it also becomes the golden data that later versions must read.
func TestGolden_OfThisVersion(t *testing.T) {
	dir := *goldenDir
	if dir == "" {
		dir = t.TempDir()
	} else if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatalf("golden data are written once: %v", err)
	}
	synctest.Test(t, func(t *testing.T) { writeGroup(t, dir) })
	synctest.Test(t, func(t *testing.T) { writeLocked(t, dir) })
	readGolden(t, dir)
}

// writeGroup keeps the disks of a group: m1 and m2 vote, m3 was removed, and m4 is about to join.
func writeGroup(t *testing.T, to string) {
	g := newGroup(t)
	g.interval, g.dir = 20, t.TempDir()
	m1 := g.first()
	m2, m3 := g.join("m2"), g.join("m3")
	writeObjects(t, m1.store)
	if err := m1.store.RemoveMember(t.Context(), m3.store.Status().RaftID); err != nil {
		t.Fatal(err)
	}
	<-m3.ended
	m3.ended <- nil
	joined, err := m1.store.AddMember(t.Context(), "m4", "m4:1", store.Protocol)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Prepare(g.add("m4").disk, "c1", joined); err != nil {
		t.Fatal(err)
	}
	storetest.Create(t, m1.store, service("last", "last"))
	g.same(m1, m2)
	keepState(t, m1.store, filepath.Join(to, "group.json"))
	m1.stop()
	m2.stop()
	if err := os.RemoveAll(filepath.Join(g.dir, "m3")); err != nil {
		t.Fatal(err)
	}
	pack(t, g.dir, filepath.Join(to, "group.zip"))
}

// writeLocked keeps the disk of a single manager whose store an unlock key seals.
func writeLocked(t *testing.T, to string) {
	g := newGroup(t)
	g.interval, g.dir = 20, t.TempDir()
	m := g.first()
	writeObjects(t, m.store)
	unlock := seal.NewKey()
	if err := m.store.Reseal(unlock, seal.SourceUnlockKey); err != nil {
		t.Fatal(err)
	}
	storetest.Create(t, m.store, service("last", "last"))
	keepState(t, m.store, filepath.Join(to, "locked.json"))
	m.stop()
	if err := os.WriteFile(filepath.Join(g.dir, "unlock-key"), []byte(unlock.UnlockKey()), 0o600); err != nil {
		t.Fatal(err)
	}
	pack(t, g.dir, filepath.Join(to, "locked.zip"))
}

// writeObjects writes objects of every kind, more than fit between two snapshots, changes some and deletes some.
func writeObjects(t *testing.T, s *store.Store) {
	for _, kind := range object.Kinds() {
		if kind == object.KindAuditSegment {
			record(t, s, event("golden"), event("golden, too"))
			continue
		}
		full := object.New(kind, "").ProtoReflect()
		fill(full, 0)
		full.Set(full.Descriptor().Fields().ByName("id"), protoreflect.ValueOfString("full-"+kind.String()))
		storetest.Create(t, s, full.Interface().(object.Object), object.New(kind, "sparse-"+kind.String()))
	}
	for i := range 30 {
		storetest.Create(t, s, task(fmt.Sprintf("t%02d", i), "s", uint64(i), "n"))
	}
	err := s.Update(t.Context(), goldenRequest, func(tx store.Tx) error {
		changed := proto.CloneOf(storetest.Get[*api.Service](t, s, "full-service"))
		changed.SpecVersion++
		if err := tx.Update(changed); err != nil {
			return err
		}
		if err := tx.Delete(object.KindTask, "t00"); err != nil {
			return err
		}
		return tx.Create(service("requested", "requested"))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// maxFill bounds how deep fill goes, should a message ever contain itself.
const maxFill = 10

// fill sets every field of m and of the messages in it, so that golden data hold each of them.
func fill(m protoreflect.Message, depth int) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		field := fields.Get(i)
		if alternatives := field.ContainingOneof(); depth == maxFill || alternatives != nil && m.WhichOneof(alternatives) != nil {
			continue
		}
		switch {
		case field.IsMap():
			entry := m.Mutable(field).Map()
			value := entry.NewValue()
			entry.Set(example(field.MapKey(), value, depth).MapKey(), example(field.MapValue(), value, depth))
		case field.IsList():
			list := m.Mutable(field).List()
			list.Append(example(field, list.NewElement(), depth))
		default:
			m.Set(field, example(field, m.NewField(field), depth))
		}
	}
}

// example returns a value for a field, which is not the default one; empty is a new value of its type.
func example(field protoreflect.FieldDescriptor, empty protoreflect.Value, depth int) protoreflect.Value {
	switch field.Kind() {
	case protoreflect.MessageKind:
		fill(empty.Message(), depth+1)
		return empty
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("golden " + string(field.Name()))
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("golden " + string(field.Name())))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(true)
	case protoreflect.EnumKind:
		values := field.Enum().Values()
		return protoreflect.ValueOfEnum(values.Get(values.Len() - 1).Number())
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(field.Number()))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(field.Number()))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(int64(field.Number()))
	case protoreflect.Uint64Kind:
		return protoreflect.ValueOfUint64(uint64(field.Number()))
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(float32(field.Number()) + 0.5)
	default:
		panic(fmt.Sprintf("no example for %s: add a case here", field.FullName()))
	}
}

// keepState writes down what a store holds.
func keepState(t *testing.T, s *store.Store, path string) {
	t.Helper()
	snapshot, err := s.Snapshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{Multiline: true}.Marshal(snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o600); err != nil {
		t.Fatal(err)
	}
}

// pack makes a zip file of a directory.
func pack(t *testing.T, dir, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := zip.NewWriter(f)
	if err := w.AddFS(os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}
