package agent_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/skep-io/skep/api"
)

// What a task prints is kept as its log driver says.
func TestContainer_KeepsOfItsOutputWhatItsLogDriverSays(t *testing.T) {
	m := adopted(t)
	const size, files = 256 << 10, 2
	much := newTask("t1", slices.Concat([]string{"show"}, slices.Repeat([]string{"/etc/passwd", "/etc/hosts"}, 2000))...)
	much.Spec.LogDriver = &api.LogDriver{Name: "file", Options: map[string]string{"max-size": "256k", "max-file": "2"}}
	m.run(t, much)
	if kept := logFiles(t, m, "t1"); len(kept) != files || kept[1] < size/2 || kept[0] > size || kept[1] > size {
		t.Errorf("files of %v bytes are kept, want %d of at most %d", kept, files, size)
	}
	nothing := newTask("t2", "env")
	nothing.Spec.LogDriver = &api.LogDriver{Name: "none"}
	if c, out := m.run(t, nothing); c.GetExitCode() != 0 || out != "" {
		t.Errorf("exit code %d, and kept is %q", c.GetExitCode(), out)
	}
	if kept := logFiles(t, m, "t2"); len(kept) != 0 {
		t.Errorf("files of %v bytes are kept, want none", kept)
	}
}

// logFiles returns the sizes of the files of a task's log.
func logFiles(t *testing.T, m *machine, id string) (sizes []int64) {
	t.Helper()
	path, err := m.exec.LogPath(id)
	if err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		sizes = append(sizes, st.Size())
	}
	return sizes
}
