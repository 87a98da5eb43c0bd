package auditfile

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/skep-io/skep/api"
)

// example returns a log with an entry that has everything and one that has next to nothing.
func example() (*api.AuditLog, []*api.AuditEntry) {
	full := &api.AuditEvent{Count: 3, FirstAt: 1_700_000_000_000_000_001}
	fields := full.ProtoReflect().Descriptor().Fields()
	for i := range fields.Len() {
		if field := fields.Get(i); field.Kind() == protoreflect.StringKind {
			full.ProtoReflect().Set(field, protoreflect.ValueOfString("<&\u2028 "+string(field.Name())+"\x01>"))
		}
	}
	log := &api.AuditLog{
		ClusterId: "c1", Anchor: &api.AuditHead{Sequence: 4, Hash: []byte{1, 2}},
		Head: &api.AuditHead{Sequence: 6, Hash: []byte{3}, RecoveredAt: 1_700_000_000_000_000_002},
	}
	return log, []*api.AuditEntry{
		{Sequence: 5, Time: timestamppb.New(time.Unix(1_700_000_000, 123_456_789)), Event: full, Hash: []byte{7}},
		{Sequence: 6, Time: timestamppb.New(time.Unix(0, 0)), Event: &api.AuditEvent{}, Hash: []byte{8}},
	}
}

func written(log *api.AuditLog, entries []*api.AuditEntry) ([]byte, error) {
	var b bytes.Buffer
	err := WriteLog(&b, log)
	for _, e := range entries {
		err = errors.Join(err, WriteEntry(&b, e))
	}
	return b.Bytes(), err
}

func read(file []byte) (*api.AuditLog, []*api.AuditEntry, error) {
	r, err := NewReader(bytes.NewReader(file))
	if err != nil {
		return nil, nil, err
	}
	var entries []*api.AuditEntry
	for {
		e, err := r.Next()
		if errors.Is(err, io.EOF) {
			return r.Log, entries, nil
		}
		if err != nil {
			return nil, nil, err
		}
		entries = append(entries, e)
	}
}

func TestReader_ReadsWhatWasWritten(t *testing.T) {
	log, entries := example()
	file, err := written(log, entries)
	if err != nil {
		t.Fatal(err)
	}
	gotLog, got, err := read(file)
	if err != nil || !proto.Equal(gotLog, log) || len(got) != len(entries) {
		t.Fatalf("%v, %v", gotLog, err)
	}
	for i := range got {
		if !proto.Equal(got[i], entries[i]) {
			t.Errorf("got %v, want %v", got[i], entries[i])
		}
	}
}

// The form of an export is part of what others build on.
func TestWriteEntry_HasAFixedForm(t *testing.T) {
	file, err := written(&api.AuditLog{ClusterId: "c"}, []*api.AuditEntry{{
		Sequence: 1, Time: timestamppb.New(time.Unix(0, 5)), Event: &api.AuditEvent{Method: "Control.CreateSecret", Result: "ok"}, Hash: []byte{0xab},
	}})
	want := `{"type":"log","version":1,"cluster_id":"c","anchor":{"sequence":0,"hash":""},"head":{"sequence":0,"hash":""}}
{"type":"entry","sequence":1,"time":"1970-01-01T00:00:00.000000005Z","method":"Control.CreateSecret","result":"ok","hash":"ab"}
`
	if err != nil || string(file) != want {
		t.Errorf("%v\n%s", err, file)
	}
}

func TestReader_NamesTheLineThatIsNone(t *testing.T) {
	log, entries := example()
	file, err := written(log, entries)
	if err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		change func(string) string
		line   string
	}{
		"nothing":           {func(string) string { return "" }, "line 1 "},
		"no log":            {func(s string) string { return s[strings.Index(s, "\n")+1:] }, "line 1 "},
		"another version":   {func(s string) string { return strings.Replace(s, `"version":1`, `"version":2`, 1) }, "line 1 "},
		"no anchor":         {func(s string) string { return strings.Replace(s, `"anchor"`, `"head"`, 1) }, "line 1 "},
		"an unknown name":   {func(s string) string { return strings.Replace(s, `"method"`, `"methode"`, 1) }, "line 2 "},
		"no JSON":           {func(s string) string { return s + "{\n" }, "line 4 "},
		"two objects":       {func(s string) string { return s + `{"type":"entry","time":"1970-01-01T00:00:00Z"} {}` }, "line 4 "},
		"no time":           {func(s string) string { return s + `{"type":"entry"}` }, "line 4 "},
		"a hash not in hex": {func(s string) string { return strings.Replace(s, `"hash":"07"`, `"hash":"0x"`, 1) }, "line 2 "},
		"a line too long":   {func(s string) string { return s + strings.Repeat(" ", maxLine) + "{}\n" }, "line 4 "},
	} {
		_, _, err := read([]byte(test.change(string(file))))
		if lineErr := (*LineError)(nil); !errors.As(err, &lineErr) || !strings.HasPrefix(err.Error(), test.line) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriteEntry_RefusesWhatANewerVersionMade(t *testing.T) {
	_, entries := example()
	entries[0].Event.ProtoReflect().SetUnknown([]byte("\xa2\x06\x01x"))
	if _, err := written(&api.AuditLog{}, entries); err == nil {
		t.Error("what can't be written is left out in silence")
	}
}

func FuzzReader(f *testing.F) {
	log, entries := example()
	file, err := written(log, entries)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(file)
	f.Fuzz(func(t *testing.T, b []byte) {
		log, entries, err := read(b)
		if err != nil {
			return
		}
		again, err := written(log, entries)
		if err != nil {
			return // a time that no JSON can have
		}
		log2, entries2, err := read(again)
		if err != nil || !proto.Equal(log, log2) || len(entries) != len(entries2) {
			t.Fatalf("read again: %v, %v", log2, err)
		}
		for i := range entries {
			if !proto.Equal(entries[i], entries2[i]) {
				t.Fatalf("read %v, then %v", entries[i], entries2[i])
			}
		}
	})
}
