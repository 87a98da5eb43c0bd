package unpack

import (
	"archive/tar"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestApply_MakesWhatTheLayerSays(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	report := mustApply(
		t, dir, nil,
		dirEnt("./", 0o755), dirEnt("bin/", 0o755), file("bin/sh", "#!").mode(0o4755).owned(3, 4),
		hardlink("bin/ash", "bin/sh"), symlink("sh", "/bin/sh").owned(5, 6),
		device("dev/null", tar.TypeChar, 1, 3), device("dev/sda", tar.TypeBlock, 8, 0), device("run/pipe", tar.TypeFifo, 0, 0),
		dirEnt("tmp", 0o1777).owned(0, 7), file("etc/caps", "x").xattr("user.note", "hi"),
		file("etc/twice", "first"), file("etc/twice", "second"),
	)
	want := map[string]string{
		".": "drwxr-xr-x 0:0", "bin": "drwxr-xr-x 0:0", "bin/sh": "urwxr-xr-x 3:4 #!", "bin/ash": "urwxr-xr-x 3:4 #!",
		"sh": "Lrwxrwxrwx 5:6 -> /bin/sh", "dev": "drwxr-xr-x 0:0", "dev/null": "Dcrw-rw-rw- 0:0 1,3",
		"dev/sda": "Drw-rw-rw- 0:0 8,0", "run": "drwxr-xr-x 0:0", "run/pipe": "prw-rw-rw- 0:0",
		"tmp": "dtrwxrwxrwx 0:7", "etc": "drwxr-xr-x 0:0", "etc/caps": "-rw-r--r-- 0:0 x +user.note",
		"etc/twice": "-rw-r--r-- 0:0 second",
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(Report{Entries: 12, Bytes: 14}, report); diff != "" {
		t.Errorf("report (-want +got):\n%s", diff)
	}
	for name, want := range map[string]int64{"bin": epoch.Unix(), "etc": 0, "etc/twice": epoch.Unix(), "sh": epoch.Unix(), ".": epoch.Unix()} {
		info, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || info.ModTime().Unix() != want {
			t.Errorf("%s has time %v, %v, want %d", name, info.ModTime(), err, want)
		}
	}
}

func TestApply_Replaces(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	mustApply(
		t, dir, nil,
		file("d/a/b/c", "deep"), file("d", "now a file"),
		dirEnt("e", 0o755), symlink("e", "d"), file("s", ""), dirEnt("s", 0o700), file("s/x", "y"), dirEnt("s", 0o711),
	)
	want := map[string]string{
		".": "drwxr-xr-x 0:0", "d": "-rw-r--r-- 0:0 now a file", "e": "Lrwxrwxrwx 0:0 -> d",
		"s": "drwx--x--x 0:0", "s/x": "-rw-r--r-- 0:0 y",
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
}

func TestApply_Whiteouts(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	report := mustApply(
		t, dir, nil,
		file("etc/.wh.gone", ""), file("opt/.wh..wh..opq", ""), file("opt/new", "n"),
		file("both", "here"), file(".wh.both", ""), // the layer's own file already hides
		dirEnt("reborn", 0o755), file(".wh.reborn", ""), // the directory must hide
		file(".wh.again", ""), dirEnt("again", 0o755), // in the other order
		file(".wh.plain", ""), file("plain", "p"),
		file(".wh..wh.plnk", ""), symlink("link", "opt"), file("link/sub/.wh..wh..opq", ""),
	)
	want := map[string]string{
		".": "drwxr-xr-x 0:0", "etc": "drwxr-xr-x 0:0", "etc/gone": "Dc--------- 0:0 0,0",
		"opt": "drwxr-xr-x 0:0 +trusted.overlay.opaque", "opt/new": "-rw-r--r-- 0:0 n", "both": "-rw-r--r-- 0:0 here",
		"reborn": "drwxr-xr-x 0:0 +trusted.overlay.opaque", "again": "drwxr-xr-x 0:0 +trusted.overlay.opaque",
		"plain": "-rw-r--r-- 0:0 p", "link": "Lrwxrwxrwx 0:0 -> opt",
		"opt/sub": "drwxr-xr-x 0:0 +trusted.overlay.opaque",
	}
	if diff := cmp.Diff(want, tree(t, dir)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"again", "opt", "opt/sub", "reborn"}, report.Opaque); diff != "" {
		t.Errorf("opaque (-want +got):\n%s", diff)
	}
}

func TestApply_ImplicitParentsInheritFromLayersBelow(t *testing.T) {
	base := scratch(t)
	bottom, middle, top := subdir(t, base, "bottom"), subdir(t, base, "middle"), subdir(t, base, "top")
	mustApply(
		t, bottom, nil,
		dirEnt(".", 0o711).owned(1, 2), dirEnt("tmp", 0o1777).xattr("user.k", "v"), dirEnt("var", 0o750).owned(8, 9),
		dirEnt("gone", 0o700), dirEnt("real", 0o705), symlink("alias", "real"),
	)
	mustApply(t, middle, []string{bottom}, dirEnt("var", 0o755).owned(10, 11), file(".wh.gone", ""))
	mustApply(t, top, []string{middle, bottom}, file("tmp/new", ""), file("var/new/x", ""), file("gone/x", ""), file("alias/x", ""))
	want := map[string]string{
		".": "drwx--x--x 1:2", "tmp": "dtrwxrwxrwx 0:0 +user.k", "tmp/new": "-rw-r--r-- 0:0 ",
		"var": "drwxr-xr-x 10:11", "var/new": "drwxr-xr-x 0:0", "var/new/x": "-rw-r--r-- 0:0 ",
		"gone": "drwxr-xr-x 0:0", "gone/x": "-rw-r--r-- 0:0 ", "alias": "drwx---r-x 0:0", "alias/x": "-rw-r--r-- 0:0 ",
	}
	if diff := cmp.Diff(want, tree(t, top)); diff != "" {
		t.Errorf("tree (-want +got):\n%s", diff)
	}
	info, err := os.Stat(filepath.Join(top, "tmp"))
	if err != nil || info.ModTime().Unix() != epoch.Unix() {
		t.Errorf("tmp has time %v, %v, want the lower layer's %v", info.ModTime(), err, epoch)
	}
}

func TestApply_DanglingSymlinkAsParent(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	mustApply(t, dir, nil, symlink("lib", "usr/lib"), file("lib/a/b", "x"), symlink("abs", "/usr/../opt"), file("abs/c", "y"))
	got := tree(t, dir)
	for name, want := range map[string]string{"usr/lib/a/b": "-rw-r--r-- 0:0 x", "opt/c": "-rw-r--r-- 0:0 y"} {
		if got[name] != want {
			t.Errorf("%s is %q, want %q", name, got[name], want)
		}
	}
}

func TestApply_DropsAttributesThatTheKernelActsOn(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	mustApply(
		t, dir, nil,
		dirEnt("a", 0o755).xattr("trusted.overlay.redirect", "/secret"), dirEnt("b", 0o755).xattr("trusted.overlay.opaque", "y"),
		dirEnt("c", 0o755).xattr("user.overlay.opaque", "y"), file("d", "").xattr("security.selinux", "u:r:t"),
		file("e", "").xattr("security.ima", "x"), file("f", "").xattr("security.evm", "x"), file("g", "").xattr("user.ok", "x"),
	)
	for name, is := range tree(t, dir) {
		if strings.Contains(is, "+") && name != "g" {
			t.Errorf("%s is %q", name, is)
		}
	}
}

func TestApply_Capabilities(t *testing.T) {
	dir := subdir(t, scratch(t), "layer")
	// VFS_CAP_REVISION_2 with the effective bit, cap_net_raw permitted.
	caps := "\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	mustApply(t, dir, nil, file("ping", "x").mode(0o755).owned(1, 1).xattr("security.capability", caps))
	buf := make([]byte, 64)
	n, err := unix.Lgetxattr(filepath.Join(dir, "ping"), "security.capability", buf)
	if err != nil || string(buf[:n]) != caps {
		t.Errorf("security.capability = %q, %v", buf[:max(n, 0)], err)
	}
}

func TestApply_Limits(t *testing.T) {
	deep := strings.Repeat("d/", maxDepth+1) + "f"
	for _, tt := range []struct {
		name    string
		limits  Limits
		entries []ent
	}{
		{"entries", Limits{Entries: 2}, []ent{file("a", ""), file("b", ""), file("c", "")}},
		{"bytes", Limits{Bytes: 3}, []ent{file("a", "12"), file("b", "34")}},
		{"depth", Limits{}, []ent{file(deep, "")}},
		{"path", Limits{}, []ent{file(strings.Repeat("x/", 2500)+"f", "")}},
		{"xattrs", Limits{}, []ent{file("a", "").xattr("user.big", strings.Repeat("x", maxXattrs+1))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := subdir(t, scratch(t), "layer")
			if _, err := apply(t, dir, nil, tarOf(t, tt.entries...), tt.limits); !errors.Is(err, ErrLimit) {
				t.Errorf("Apply = %v, want ErrLimit", err)
			}
		})
	}
}

func TestApply_TruncatedStream(t *testing.T) {
	data := tarOf(t, file("a", strings.Repeat("x", 3000)))
	for _, n := range []int{100, 512, 600, 3000} {
		dir := subdir(t, scratch(t), "layer")
		if _, err := apply(t, dir, nil, data[:n], Limits{}); !errors.Is(err, ErrLayer) {
			t.Errorf("%d of %d bytes: Apply = %v, want ErrLayer", n, len(data), err)
		}
	}
}
