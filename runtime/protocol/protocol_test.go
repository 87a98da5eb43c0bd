package protocol

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestFrame_CarriesACallWithItsFiles(t *testing.T) {
	request := Request{ID: "a", Files: []File{
		{Dir: "/run/secrets", Name: "x", Data: Secret("alpha")},
		{Dir: "/", Name: "y", Single: true, Data: Secret("")},
		{Dir: "/run/secrets", Name: "z", Mode: 0o400, Data: Secret("omega")},
	}}
	profile := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow}
	request.Spec = &specs.Spec{Hostname: "h", Linux: &specs.Linux{Seccomp: profile}}
	sent, parts, err := request.Detach()
	if err != nil || request.Spec.Linux.Seccomp != profile {
		t.Fatalf("Detach: %v, or it changed the request", err)
	}
	var wire bytes.Buffer
	if err := Write(&wire, Call{Op: OpCreate, Request: &sent}, parts...); err != nil {
		t.Fatal(err)
	}
	var got Call
	attachment, err := Read(&wire, &got)
	if err != nil {
		t.Fatal(err)
	}
	if err := got.Request.Attach(attachment); err != nil {
		t.Fatal(err)
	}
	if got := got.Request; string(got.Seccomp) != `{"defaultAction":"SCMP_ACT_ALLOW"}` || got.Spec.Hostname != "h" || got.Spec.Linux.Seccomp != nil {
		t.Errorf("profile %q, in the specification %v", got.Seccomp, got.Spec.Linux.Seccomp)
	}
	for i, want := range []string{"alpha", "", "omega"} {
		if string(got.Request.Files[i].Data) != want {
			t.Errorf("file %d is %q, want %q", i, []byte(got.Request.Files[i].Data), want)
		}
	}
	if _, err := Read(&wire, &got); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v, want EOF", err)
	}
}

func TestFrame_Refuses(t *testing.T) {
	var call Call
	for name, text := range map[string]string{
		"no message":         "\x00\x00\x00\x00\x00\x00\x00\x00",
		"message too long":   "\xff\xff\xff\xff\x00\x00\x00\x00",
		"attached too long":  "\x00\x00\x00\x02\xff\xff\xff\xff{}",
		"text after it":      "\x00\x00\x00\x03\x00\x00\x00\x00{}!",
		"not JSON":           "\x00\x00\x00\x02\x00\x00\x00\x00]]",
		"unknown field":      "\x00\x00\x00\x09\x00\x00\x00\x00{\"Evil\":1}",
		"wrong type of data": "\x00\x00\x00\x0c\x00\x00\x00\x00{\"Signal\":\"\"}",
	} {
		if _, err := Read(strings.NewReader(text), &call); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: %v, want ErrFrame", name, err)
		}
	}
	if _, err := Read(strings.NewReader("\x00\x00"), &call); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut off: %v", err)
	}
	if err := Write(io.Discard, Call{}, make([]byte, MaxAttachment+1)); !errors.Is(err, ErrFrame) {
		t.Errorf("too much attached: %v, want ErrFrame", err)
	}
	for _, sizes := range [][]int{{-1}, {5}, {1}} {
		r := Request{Files: []File{{Size: sizes[0]}}}
		if err := r.Attach([]byte("abc")); !errors.Is(err, ErrFrame) {
			t.Errorf("file of %d bytes with 3 attached: %v, want ErrFrame", sizes[0], err)
		}
		r = Request{SeccompSize: sizes[0]}
		if err := r.Attach([]byte("abc")); !errors.Is(err, ErrFrame) {
			t.Errorf("profile of %d bytes with 3 attached: %v, want ErrFrame", sizes[0], err)
		}
	}
}

func TestSecret_ShowsNothing(t *testing.T) {
	f := File{Name: "n", Data: Secret("hunter2")}
	text, err := json.Marshal(map[string]any{"file": f, "secret": f.Data})
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "secret", f.Data, "file", f)
	for _, shown := range []string{
		string(text), log.String(), fmt.Sprint(f), fmt.Sprintf("%v %+v %#v %s %x %q", f, f, f, f.Data, f.Data, f.Data),
	} {
		if strings.Contains(shown, "hunter2") || strings.Contains(shown, fmt.Sprintf("%x", "hunter2")) {
			t.Errorf("shown: %s", shown)
		}
	}
}

func TestFailure_KeepsSentinelAndText(t *testing.T) {
	for _, sentinel := range kinds() {
		err := NewFailure(fmt.Errorf("create x: %w", sentinel)).Err()
		if !errors.Is(err, sentinel) || !strings.HasPrefix(err.Error(), "create x: ") {
			t.Errorf("%v became %v", sentinel, err)
		}
	}
	if err := NewFailure(io.EOF).Err(); err == nil || errors.Is(err, io.EOF) {
		t.Errorf("an error of no kind became %v", err)
	}
	if NewFailure(nil) != nil || (*Failure)(nil).Err() != nil {
		t.Error("nil became an error")
	}
}

func TestState_RoundTrip(t *testing.T) {
	want := State{
		ID: "a", Status: Exited, ExitCode: 137, Signal: 9, OOMKilled: true, Error: "e",
		CreatedAt: time.Unix(1, 5).UTC(), FinishedAt: time.Unix(2, 0).UTC(),
	}
	var wire bytes.Buffer
	if err := Write(&wire, Reply{State: &want}); err != nil {
		t.Fatal(err)
	}
	var got Reply
	if _, err := Read(&wire, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&want, got.State); diff != "" {
		t.Errorf("state (-want +got):\n%s", diff)
	}
}

// FuzzRead holds that no bytes panic the decoder, and that a call which was read can be sent and read again.
func FuzzRead(f *testing.F) {
	var seed bytes.Buffer
	if err := Write(&seed, Call{Op: OpCreate, Request: &Request{ID: "a", Files: []File{{Size: 3}}}}, []byte("abc")); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		var call, again Call
		attachment, err := Read(bytes.NewReader(data), &call)
		if err != nil {
			return
		}
		if call.Request != nil && call.Request.Attach(attachment) != nil {
			return
		}
		var wire bytes.Buffer
		if err := Write(&wire, call, attachment); err != nil {
			return // escaping made it too long
		}
		if _, err := Read(&wire, &again); err != nil {
			t.Fatalf("read what was written: %v", err)
		}
	})
}
