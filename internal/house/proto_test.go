package house_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What the nodes and the data of the last release could not live with, `make lint` refuses.
func TestProto_BreakingChangesAreRefused(t *testing.T) {
	if testing.Short() {
		t.Skip("needs buf, which go tool may have to download: run without -short")
	}
	tests := []struct {
		name, file, before, after string
		want                      string // what buf says, or empty for a change that is allowed
	}{
		{"nothing", "objects.proto", "", "", ""},
		{"a new field", "raft.proto", "string node_id = 1;\n  string cluster_id = 2;", "string node_id = 1;\n  string cluster_id = 2;\n  bool extra = 1000;", ""},
		{"a removed field", "objects.proto", "  uint64 spec_version = 4;\n", "", `field "4"`},
		{"a removed field whose number is kept free", "objects.proto", "  uint64 spec_version = 4;\n", "  reserved 4;\n  reserved \"spec_version\";\n", ""},
		{"another type", "store.proto", "uint64 expected_version = 3;", "string expected_version = 3;", `Field "3"`},
		{"a reused number", "store.proto", "uint64 expected_version = 3;", "uint64 expected_index = 3;", `Field "3"`},
		{"another number", "store.proto", "CHANGE_ACTION_CHECK = 4;", "CHANGE_ACTION_CHECK = 5;", `Previously present enum value "4"`},
		{"a removed RPC", "raft.proto", "  rpc Probe(", "  rpc Look(", `Previously present RPC "Probe"`},
		{"a removed service", "raft.proto", "service Raft {", "service Consensus {", `Previously present service "Raft"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.CopyFS(filepath.Join(dir, "proto"), os.DirFS(filepath.Join(root, "proto"))); err != nil {
				t.Fatal(err)
			}
			edit(t, filepath.Join(dir, "proto", "skep", "v1", test.file), test.before, test.after)
			out := breaking(t, dir)
			if test.want == "" && out != "" || !strings.Contains(out, test.want) {
				t.Errorf("buf says %q, want %q", out, test.want)
			}
		})
	}
}

// edit replaces a piece of a file, which must be there.
func edit(t *testing.T, path, before, after string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), before) {
		t.Fatalf("%s has no %q any more: change the test", path, before)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(text), before, after, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

// breaking returns what is wrong with the proto files in dir, by our rules and against our baseline; empty is nothing.
func breaking(t *testing.T, dir string) string {
	t.Helper()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	command := exec.CommandContext(t.Context(), "go", "tool", "-modfile="+filepath.Join(top, "tools", "buf", "go.mod"),
		"buf", "breaking", dir, "--config", filepath.Join(top, "buf.yaml"), "--against", filepath.Join(top, "proto", "baseline.binpb"))
	command.Dir = top
	out, err := command.CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	return string(out)
}
