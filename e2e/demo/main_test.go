package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skep-io/skep/e2e/lab"
)

func TestMain(m *testing.M) {
	lab.Main()
	os.Exit(m.Run())
}

func TestDemo_ShowsItsActsAndLeavesNoTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("needs built programs and root: run without -short")
	}
	if missing := lab.Missing(); missing != "" {
		t.Skip("needs " + missing)
	}
	t.Setenv("TMPDIR", t.TempDir())
	var out strings.Builder
	if err := run(t.Context(), &out, "../../bin", false); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, want := range []string{
		"m1         Ready     Active         Leader", "3/3", "secret.honey: sha256:", "seccomp: 2", "4/4", "catches up",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo did not show %q:\n%s", want, out.String())
		}
	}
	if strings.Contains(out.String(), "\033") {
		t.Error("the demo wrote escapes to what is no terminal")
	}
	left, err := filepath.Glob(filepath.Join(os.TempDir(), "*"))
	if err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}
