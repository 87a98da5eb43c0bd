package main

import (
	"bytes"
	"strings"
	"testing"
)

func TestRun_Usage(t *testing.T) {
	for _, tc := range []struct {
		args      []string
		code      int
		out, errs string
	}{
		{nil, 2, "", "usage: skep-runtime supervise"},
		{[]string{"dance"}, 2, "", "skep-runtime: unknown command \"dance\"\nusage: skep-runtime supervise"},
		{[]string{"--root", "/x", "dance"}, 2, "", "skep-runtime: unknown command \"dance\"\n"},
		{[]string{"--help"}, 0, "usage: skep-runtime supervise", ""},
		{[]string{"supervise"}, 2, "", `Root: "" is not an absolute path`},
		{[]string{"supervise", "--root", "/x", "--socket", "y"}, 2, "", `Socket: "y" is not an absolute path`},
		{[]string{"supervise", "--root", "/x", "--socket", "/y", "z"}, 2, "", `unexpected argument "z"`},
		{[]string{"supervise", "--fast"}, 2, "", "flag provided but not defined: -fast"},
		{[]string{"supervise", "--help"}, 0, "", "-kill-on-exit"},
		{[]string{"version"}, 0, "skep-runtime ", ""},
	} {
		var out, errs bytes.Buffer
		code := run(tc.args, &out, &errs)
		if code != tc.code || !strings.Contains(out.String(), tc.out) || !strings.Contains(errs.String(), tc.errs) {
			t.Errorf("%q: status %d, output %q, errors %q; want %d, %q, %q", tc.args, code, out.String(), errs.String(),
				tc.code, tc.out, tc.errs)
		}
	}
}
