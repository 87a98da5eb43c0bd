package executor

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/skep-io/skep/internal/fault"
)

const (
	testPasswd = "root:x:0:0:root:/root:/bin/sh\n# comment\nbroken\napp:x:1000:1001::/srv/app:\nodd:x:7:7::home\x00:\nbig:x:70000:1::/:\nnegative:x:-1:0::/:\n"
	testGroup  = "root:x:0:\nkmem:x:12:root\nstaff:x:50:other,app\nwheel:x:10:app\nhuge:x:99999:app\napp:x:1001:app\n"
)

func TestLookup_ResolvesAsDockerDoes(t *testing.T) {
	a := accounts{passwd: []byte(testPasswd), group: []byte(testGroup)}
	tests := []struct {
		spec  string
		want  account
		error string
	}{
		{"", account{groups: []uint32{0, 12}, home: "/root"}, ""},
		{"app", account{uid: 1000, gid: 1001, groups: []uint32{1001, 50, 10}, home: "/srv/app"}, ""},
		{"1000", account{uid: 1000, gid: 1001, groups: []uint32{1001, 50, 10}, home: "/srv/app"}, ""},
		{"2000", account{uid: 2000, groups: []uint32{0}, home: "/"}, ""},
		{"app:staff", account{uid: 1000, gid: 50, groups: []uint32{50}, home: "/srv/app"}, ""},
		{"app:7", account{uid: 1000, gid: 7, groups: []uint32{7}, home: "/srv/app"}, ""},
		{"2000:3000", account{uid: 2000, gid: 3000, groups: []uint32{3000}, home: "/"}, ""},
		{":staff", account{gid: 50, groups: []uint32{50}, home: "/root"}, ""},
		{"odd", account{uid: 7, gid: 7, groups: []uint32{7}, home: "/"}, ""},
		{"nobody", account{}, "not in the image's /etc/passwd"},
		{"negative", account{}, "not in the image's /etc/passwd"},
		{"app:none", account{}, "not in the image's /etc/group"},
		{"big", account{}, "not within the 65536 ids"},
		{"70000", account{}, "not within the 65536 ids"},
		{"2147483648", account{}, "not a number from 0 to 2147483647"},
		{"007", account{}, "not a number"},
		{"1e3", account{}, "not a number"},
		{"app:4294967296", account{}, "not a number"},
	}
	for _, test := range tests {
		t.Run(test.spec, func(t *testing.T) {
			got, err := a.lookup(test.spec)
			if test.error != "" {
				if fault.KindOf(err) != fault.Invalid || !strings.Contains(err.Error(), test.error) {
					t.Errorf("got %v, %v, want %q", got, err, test.error)
				}
				return
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(account{})); diff != "" || err != nil {
				t.Errorf("%s, %v", diff, err)
			}
		})
	}
}

func TestLookup_IsBounded(t *testing.T) {
	var many strings.Builder
	for i := range 2 * maxGroups {
		fmt.Fprintf(&many, "g%d:x:%d:app\n", i, i+1)
	}
	groups := accounts{passwd: []byte("app:x:1:0::/:\n"), group: []byte(many.String())}
	if got, err := groups.lookup("app"); len(got.groups) != maxGroups || err != nil {
		t.Errorf("%d groups, %v", len(got.groups), err)
	}
}

func FuzzLookup(f *testing.F) {
	f.Add(testPasswd, testGroup, "app:staff", "www")
	f.Add("", "", "1000", "7")
	f.Fuzz(func(t *testing.T, passwd, group, spec, added string) {
		got, err := accounts{passwd: []byte(passwd), group: []byte(group)}.lookup(spec, added)
		if err == nil && (got.uid >= rangeSize || got.gid >= rangeSize || len(got.groups) > maxGroups) {
			t.Errorf("%+v", got)
		}
	})
}

func FuzzReachable(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.1\nnameserver 192.0.2.1\nsearch a b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		out, servers := reachable(data)
		again, n := reachable(out)
		if string(again) != string(out) || n != servers {
			t.Errorf("%q became %q", out, again)
		}
	})
}

func FuzzParseRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"image":"sha256:00","id_base":268435456}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := parseRecord(data); err == nil && r.Version != recordVersion {
			t.Errorf("%+v", r)
		}
	})
}

// tree makes a directory with files: "dir/" is a directory, "a->b" a link, "a=text" a file, "wh:a" a whiteout, "opaque:a" a directory that
// hides those below.
func tree(t *testing.T, files ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range files {
		if err := plant(root, f); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func plant(root, f string) error {
	if name, ok := strings.CutPrefix(f, "wh:"); ok {
		return unix.Mknod(filepath.Join(root, name), unix.S_IFCHR, 0)
	}
	if name, ok := strings.CutPrefix(f, "opaque:"); ok {
		if err := os.MkdirAll(filepath.Join(root, name), 0o755); err != nil {
			return err
		}
		return unix.Setxattr(filepath.Join(root, name), opaqueAttr, []byte("y"), 0)
	}
	if name, target, ok := strings.Cut(f, "->"); ok {
		return os.Symlink(target, filepath.Join(root, name))
	}
	if name, text, ok := strings.Cut(f, "="); ok {
		return os.WriteFile(filepath.Join(root, name), []byte(text), 0o644)
	}
	return os.MkdirAll(filepath.Join(root, f), 0o755)
}

func TestReadImageFile_SeesWhatAContainerSees(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to make whiteouts")
	}
	base := func() string { return tree(t, "etc", "etc/passwd=base", "lib", "lib/passwd=lib") }
	tests := []struct {
		name   string
		layers []string
		want   string
	}{
		{"one layer", []string{base()}, "base"},
		{"the top wins", []string{tree(t, "etc", "etc/passwd=top"), base()}, "top"},
		{"merged directories", []string{tree(t, "etc", "etc/other=x"), base()}, "base"},
		{"deleted file", []string{tree(t, "etc", "wh:etc/passwd"), base()}, ""},
		{"deleted directory", []string{tree(t, "wh:etc"), base()}, ""},
		{"opaque directory", []string{tree(t, "opaque:etc"), base()}, ""},
		{"file in place of the directory", []string{tree(t, "etc=file"), base()}, ""},
		{"directory over a link", []string{tree(t, "etc"), tree(t, "etc->lib"), base()}, ""},
		{"relative link", []string{tree(t, "etc", "etc/passwd->../lib/passwd"), base()}, "lib"},
		{"absolute link", []string{tree(t, "etc", "etc/passwd->/lib/passwd"), base()}, "lib"},
		{"linked directory", []string{tree(t, "etc->lib"), base()}, "lib"},
		{"link out of the image", []string{tree(t, "etc", "etc/passwd->../../../../../../../../lib/passwd"), base()}, "lib"},
		{"link to nothing", []string{tree(t, "etc", "etc/passwd->/none"), base()}, ""},
		{"not a file", []string{tree(t, "etc/passwd")}, ""},
		{"no image", nil, ""},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := readImageFile(test.layers, "/etc/passwd", 100)
			if string(got) != test.want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, test.want)
			}
		})
	}
	if _, err := readImageFile([]string{tree(t, "etc", "etc/passwd->passwd")}, "/etc/passwd", 100); err == nil {
		t.Error("E4: a link to itself was followed")
	}
	if got, err := readImageFile([]string{base()}, "/etc/passwd", 2); string(got) != "ba" || err != nil {
		t.Errorf("E4: beyond the limit: %q, %v", got, err)
	}
}
