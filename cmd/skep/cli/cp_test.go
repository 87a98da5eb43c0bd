package cli_test

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/cmd/skep/cli"
	"github.com/skep-io/skep/internal/fault"
)

// archive encodes entries; files hold the text "text", directories end with a slash, and "a -> b" is a link.
func archive(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range names {
		h := &tar.Header{Name: name, Mode: 0o644, Size: 4}
		if strings.HasSuffix(name, "/") {
			h.Typeflag, h.Size, h.Mode = tar.TypeDir, 0, 0o755
		}
		if from, to, ok := strings.Cut(name, " -> "); ok {
			h.Typeflag, h.Size, h.Name, h.Linkname = tar.TypeSymlink, 0, from, to
		}
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if h.Size > 0 {
			if _, err := io.WriteString(w, "text"); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// run runs a command line and gives its exit code and outputs.
func run(t *testing.T, opts cli.Options, stdin io.Reader, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = cli.Main(t.Context(), args, stdin, &out, &errs, opts)
	return code, out.String(), errs.String()
}

func TestCopy_FromATask(t *testing.T) {
	f, opts := start(t)
	dir := t.TempDir()
	f.withTasks(func(stream api.Tasks_ConnectTaskServer) error {
		first, err := stream.Recv()
		if from := first.GetCopyFrom(); err != nil || from.GetPath() != "/app" || !from.GetFollowLink() || first.GetTask() != "web.1" {
			t.Errorf("asked for %v, %v", first, err)
		}
		text := archive(t, "app/", "app/f")
		return errors.Join(stream.Send(connected()), stream.Send(stdout(text[:700])), stream.Send(stderr("warning: \"\x1b[2Jdev\" is left out\n")),
			stream.Send(stdout(text[700:])), stream.Send(disconnected(0)))
	})
	code, out, errs := run(t, opts, nil, "cp", "-L", "web.1:/app", dir)
	if text, err := os.ReadFile(dir + "/app/f"); code != 0 || string(text) != "text" || out != "" {
		t.Errorf("code %d, %q %v, printed %q %q", code, text, err, out, errs)
	}
	if want := "warning: \"?[2Jdev\" is left out\n"; errs != want { // no word about success, and nothing that a terminal would obey
		t.Errorf("got %q, want %q", errs, want)
	}
	if code, out, errs := run(t, opts, nil, "cp", "-L", "web.1:/app", "-"); code != 0 || out != string(archive(t, "app/", "app/f")) {
		t.Errorf("code %d, %d bytes, %s", code, len(out), errs)
	}
	opts.IsTerminal = func(any) bool { return true }
	if code, _, errs := run(t, opts, nil, "cp", "-L", "web.1:/app", "-"); code != 5 || !strings.Contains(errs, "nothing for a terminal") {
		t.Errorf("to a terminal: code %d, %s", code, errs)
	}
	if code, _, errs := run(t, opts, nil, "cp", "-L", "web.1:/app", dir+"/x"); code != 0 || !strings.Contains(errs, "Successfully copied 4B to "+dir+"/x\n") {
		t.Errorf("on a terminal: code %d, %s", code, errs)
	}
	if _, _, errs := run(t, opts, nil, "cp", "-qL", "web.1:/app", dir+"/y"); strings.Contains(errs, "Successfully") {
		t.Errorf("quiet: %s", errs)
	}
}

// TestAttack_ANodeSendsMoreThanWasAskedFor has a task, or its node, answer with what would be written elsewhere.
func TestAttack_ANodeSendsMoreThanWasAskedFor(t *testing.T) {
	for name, text := range map[string][]byte{
		"another name": archive(t, "app/", "victim"), "up": archive(t, "app/", "app/../victim"), "from the beginning": archive(t, "../victim"),
		"through a link": archive(t, "app/", "app/l -> ../..", "app/l/victim"), "after a file": archive(t, "app", "victim"),
		"absolute": archive(t, "app/", "/victim"),
	} {
		f, opts := start(t)
		dir := t.TempDir()
		if err := errors.Join(os.Mkdir(dir+"/to", 0o755), os.WriteFile(dir+"/victim", []byte("mine"), 0o600), os.WriteFile(dir+"/to/victim", []byte("mine"), 0o600)); err != nil {
			t.Fatal(err)
		}
		f.withTasks(sends(connected(), stdout(text), disconnected(0)))
		code, _, errs := run(t, opts, nil, "cp", "web.1:/app", dir+"/to")
		if code == 0 {
			t.Errorf("%s: taken without a word", name)
		}
		for _, victim := range []string{"/victim", "/to/victim"} {
			if text, err := os.ReadFile(dir + victim); string(text) != "mine" {
				t.Errorf("%s: %s is %q, %v (%s)", name, victim, text, err, errs)
			}
		}
	}
}

func TestCopy_ToATask(t *testing.T) {
	f, opts := start(t)
	dir := t.TempDir()
	if err := errors.Join(os.WriteFile(dir+"/a:b", []byte("text"), 0o644), os.Symlink("a:b", dir+"/l")); err != nil {
		t.Fatal(err)
	}
	got := make(chan string, 1)
	f.withTasks(func(stream api.Tasks_ConnectTaskServer) error {
		first, err := stream.Recv()
		if err == nil {
			err = stream.Send(connected())
		}
		if err != nil {
			return err
		}
		text, err := input(stream)
		to, seen := first.GetCopyTo(), to(first)
		if !to.GetArchive() {
			for r := tar.NewReader(bytes.NewReader(text)); ; {
				h, err := r.Next()
				if err != nil {
					break
				}
				content, _ := io.ReadAll(r)
				seen += " " + h.Name + h.Linkname + "=" + string(content)
			}
		} else {
			seen += " " + string(text)
		}
		got <- seen
		return errors.Join(err, stream.Send(disconnected(0)))
	})
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{dir + "/a:b", "web.1:etc"}, "web.1:etc a:b=text"},
		{[]string{"-a", dir + "/l", "web.1:/etc"}, "web.1:/etc owner la:b="},
		{[]string{"-L", dir + "/l", "web.1:/etc"}, "web.1:/etc l=text"},
		{[]string{"-", "web.1:/etc"}, "web.1:/etc archive stdin"},
	} {
		code, _, errs := run(t, opts, strings.NewReader("stdin"), append([]string{"cp"}, tt.args...)...)
		if code != 0 {
			t.Fatalf("%v: code %d, %s", tt.args, code, errs)
		}
		if diff := cmp.Diff(tt.want, <-got); diff != "" {
			t.Errorf("%v (-want +got):\n%s", tt.args, diff)
		}
	}
}

func to(first *api.ConnectTaskRequest) string {
	out := first.GetTask() + ":" + first.GetCopyTo().GetPath()
	if first.GetCopyTo().GetArchive() {
		out += " archive"
	}
	if first.GetCopyTo().GetKeepOwner() {
		out += " owner"
	}
	return out
}

func TestCopy_SaysWhatCantBe(t *testing.T) {
	f, opts := start(t)
	dir := t.TempDir()
	endless, w := io.Pipe() // as a terminal's
	defer w.Close()
	for _, tt := range []struct {
		args []string
		says func(api.Tasks_ConnectTaskServer) error
		code int
		text string
	}{
		{args: []string{"a", "b"}, code: 5, text: "must specify at least one task"},
		{args: []string{"./a:b", "/c:d"}, code: 5, text: "must specify at least one task"},
		{args: []string{"web.1:/a", "web.2:/b"}, code: 5, text: "between tasks is not supported"},
		{args: []string{"web.1:", "b"}, code: 5, text: "a path is empty"},
		{args: []string{"web.1:/a"}, code: 2, text: "requires 2 arguments"},
		{args: []string{"web.1:/a", dir + "/no/x"}, code: 3, text: "no such file"},
		{args: []string{dir + "/no", "web.1:/a"}, says: func(s api.Tasks_ConnectTaskServer) error {
			_ = s.Send(connected())
			<-s.Context().Done()
			return nil
		}, code: 3, text: "no such file"},
		{args: []string{"web.1:/a", dir + "/x"}, says: func(api.Tasks_ConnectTaskServer) error {
			return fault.New(fault.PermissionDenied, "user vic has the role viewer")
		}, code: 8, text: "role viewer"},
		{args: []string{"web.1:/a", dir + "/x"}, says: func(s api.Tasks_ConnectTaskServer) error {
			return errors.Join(s.Send(connected()), s.Send(stdout(archive(t, "a/")[:100])), fault.New(fault.NotFound, "/a: it is gone"))
		}, code: 3, text: "/a: it is gone"},
		{args: []string{"web.1:/a", dir + "/x"}, says: sends(connected(), stdout([]byte(strings.Repeat("x", 2000))), disconnected(0)), code: 5, text: "not a usable tar archive"},
		{args: []string{"web.1:/a", dir + "/x"}, says: sends(connected(), disconnected(0)), code: 5, text: "it is empty"},
		{args: []string{"-", "web.1:/a"}, says: func(s api.Tasks_ConnectTaskServer) error {
			return errors.Join(s.Send(connected()), fault.New(fault.Invalid, "/a must be a directory"))
		}, code: 5, text: "must be a directory"},
	} {
		f.withTasks(func(s api.Tasks_ConnectTaskServer) error {
			if _, err := s.Recv(); err != nil {
				return err
			}
			return tt.says(s)
		})
		code, _, errs := run(t, opts, endless, append([]string{"cp"}, tt.args...)...)
		if code != tt.code || !strings.Contains(errs, tt.text) {
			t.Errorf("%v: code %d, want %d; %q has no %q", tt.args, code, tt.code, errs, tt.text)
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
