package identity

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
)

func TestDocs_TheExampleCompiles(t *testing.T) {
	page, err := os.ReadFile("../../docs/identity.md")
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile("(?s)```go\n(.*?)```").FindSubmatch(page)
	if found == nil {
		t.Fatal("docs/identity.md has no example in Go")
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, found[1], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "vet", file).CombinedOutput(); err != nil {
		t.Errorf("%v: %s", err, out)
	}
}
