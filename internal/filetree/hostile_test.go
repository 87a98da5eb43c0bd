package filetree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// hostile are streams that want to write where they may not. The destination is dir/to; what is in dir is not theirs.
func hostile() map[string][]tar.Header {
	file := func(name string) tar.Header { return tar.Header{Name: name, Mode: 0o644} }
	dir := func(name string) tar.Header { return tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755} }
	link := func(name, to string) tar.Header {
		return tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: to}
	}
	hard := func(name, to string) tar.Header { return tar.Header{Typeflag: tar.TypeLink, Name: name, Linkname: to} }
	return map[string][]tar.Header{
		"up":                        {dir("d/"), file("d/../../victim")},
		"up from the first":         {file("../victim")},
		"absolute":                  {dir("d/"), file("/victim")},
		"another name":              {dir("d/"), file("victim")},
		"a name that begins so":     {dir("d/"), file("d2")},
		"more than the file":        {file("d"), file("victim")},
		"through a link":            {dir("d/"), link("d/l", "../.."), file("d/l/victim")},
		"through links":             {dir("d/"), link("d/m", ".."), link("d/l", "m/.."), file("d/l/victim")},
		"through an absolute link":  {dir("d/"), link("d/l", "/"), file("d/l/victim")},
		"onto a link":               {dir("d/"), link("d/l", "../../victim"), file("d/l")},
		"a directory onto a link":   {dir("d/"), link("d/l", "../.."), dir("d/l/"), file("d/l/victim")},
		"the directory is a link":   {link("d", ".."), file("d/victim")},
		"hard link out":             {dir("d/"), hard("d/h", "../victim"), file("d/h")},
		"hard link to another name": {dir("d/"), hard("d/h", "victim"), file("d/h")},
		"hard link through a link":  {dir("d/"), link("d/l", "../.."), hard("d/h", "d/l/victim"), file("d/h")},
		"only a hard link":          {hard("d", "victim")},
		"a device":                  {dir("d/"), {Typeflag: tar.TypeChar, Name: "d/c", Devmajor: 1, Devminor: 3}},
		"a FIFO":                    {{Typeflag: tar.TypeFifo, Name: "d"}},
		"set-user-ID":               {{Name: "d", Mode: 0o6755}},
		"set-user-ID below":         {dir("d/"), {Name: "d/s", Mode: 0o6755}},
		"nothing":                   {},
		"a file without a name":     {file(".")},
		"too large":                 {dir("d/"), {Name: "d/f", Size: maxBytes + 1}},
		"sparse":                    {{Name: "d", PAXRecords: map[string]string{"comment": "x"}}, {Name: "d/x"}},
	}
}

// stream encodes entries. Files have the text "evil".
func stream(t testing.TB, entries []tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Typeflag != 0 || h.Size > 0 {
			if err := w.WriteHeader(&h); err != nil {
				t.Fatal(err)
			}
			continue
		}
		write(t, w, h, "evil")
	}
	_ = w.Flush() // refused for the one that is too large
	b.Write(make([]byte, 1024))
	return b.Bytes()
}

func TestAttack_StreamsStayWhereTheyBelong(t *testing.T) {
	for name, entries := range hostile() {
		for _, o := range []Options{{}, {Archive: true}} {
			for _, at := range []string{"to", "to/new"} {
				dir := tree(t, "victim=unharmed", "d2=unharmed", "to/victim=unharmed", "to/d2=unharmed")
				err := unpack(dir+"/"+at, stream(t, entries), o)
				for _, left := range list(t, dir) {
					inside := strings.HasPrefix(left, "to/d/") || strings.HasPrefix(left, "to/new") || o.Archive && strings.HasPrefix(left, "to/")
					if strings.HasSuffix(left, "evil") && !inside && left != "to/d=evil" {
						t.Errorf("%s, %+v to %s: wrote %s (%v)", name, o, at, left, err)
					}
				}
				special(t, dir, name)
			}
		}
	}
	// The control: who joins names and writes is fooled by most.
	fooled := 0
	for _, entries := range hostile() {
		dir := tree(t, "victim=unharmed", "d2=unharmed", "to/victim=unharmed", "to/d2=unharmed")
		naive(dir+"/to", stream(t, entries))
		if slices.ContainsFunc(list(t, dir), func(s string) bool { return strings.HasSuffix(s, "victim=evil") }) {
			fooled++
		}
	}
	if fooled < 8 {
		t.Errorf("a naive unpacker was fooled by %d streams only", fooled)
	}
}

// special fails if there is a device, a FIFO, or a program that runs as its owner.
func special(t *testing.T, dir, name string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := e.Info()
		if err == nil && info.Mode()&(fs.ModeDevice|fs.ModeNamedPipe|fs.ModeSetuid|fs.ModeSetgid) != 0 {
			t.Errorf("%s: made %s, %v", name, path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

// naive unpacks as many a program has.
func naive(dir string, stream []byte) {
	r := tar.NewReader(bytes.NewReader(stream))
	for {
		h, err := r.Next()
		if err != nil {
			return
		}
		path := filepath.Join(dir, h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			_ = os.MkdirAll(path, 0o755)
		case tar.TypeSymlink:
			_ = os.Symlink(h.Linkname, path)
		case tar.TypeLink:
			_ = os.Link(filepath.Join(dir, h.Linkname), path)
		case tar.TypeReg:
			if f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644); err == nil {
				_, _ = io.Copy(f, r)
				f.Close()
			}
		}
	}
}

func TestUnpack_RefusesStreamsOfNoUse(t *testing.T) {
	good := stream(t, []tar.Header{{Name: "d", Mode: 0o644}})
	for name, text := range map[string][]byte{
		"empty": nil, "zeros": make([]byte, 1024), "cut off": good[:len(good)-1024-512], "noise": bytes.Repeat([]byte("x"), 4096),
	} {
		if err := unpack(t.TempDir()+"/x", text, Options{}); !errors.Is(err, ErrStream) {
			t.Errorf("%s: %v, want ErrStream", name, err)
		}
	}
	large := stream(t, []tar.Header{{Name: "d", Size: maxBytes + 1}})
	if err := unpack(t.TempDir()+"/x", large, Options{}); !errors.Is(err, ErrLimit) {
		t.Errorf("too large: %v, want ErrLimit", err)
	}
}

// spin exchanges two names as fast as it can, until the test's end.
func spin(t *testing.T, one, two string) {
	t.Helper()
	var wg sync.WaitGroup
	end := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, one, unix.AT_FDCWD, two, unix.RENAME_EXCHANGE) // what is unpacked takes one away, at times
			}
		}
	})
	t.Cleanup(func() { close(end); wg.Wait() })
}

// raceRounds is how often a copy runs beside the attacker. The controls need a few.
const raceRounds = 300

func TestAttack_SwappedWhilePacking(t *testing.T) {
	for name, swap := range map[string]string{"directory for link": "d", "file for link": "f", "file for FIFO": "p", "directory for FIFO": "q"} {
		t.Run(name, func(t *testing.T) {
			dir := tree(t, "out/x=secret", "s/d/x=mine", "s/f=mine", "s/p=mine", "s/q/x=mine", "d -> ../out", "f -> ../out/x")
			if err := errors.Join(syscall.Mkfifo(dir+"/p", 0o600), syscall.Mkfifo(dir+"/q", 0o600)); err != nil {
				t.Fatal(err)
			}
			spin(t, dir+"/s/"+swap, dir+"/"+swap)
			for range raceRounds {
				stream, err := pack(t, dir+"/s", false)
				if err != nil && !errors.Is(err, fs.ErrPermission) {
					t.Fatal(err)
				}
				if bytes.Contains(stream, []byte("secret")) {
					t.Fatal("the attacker had a file packed that is elsewhere")
				}
			}
			if swap == "p" || swap == "q" {
				return // the control would wait for ever
			}
			for range 100 * raceRounds {
				path := map[string]string{"d": dir + "/s/d/x", "f": dir + "/s/f"}[swap]
				if info, err := os.Lstat(dir + "/s/" + swap); err == nil && info.Mode()&fs.ModeSymlink == 0 {
					runtime.Gosched() // there may be one processor for both
					if text, err := os.ReadFile(path); err == nil && string(text) == "secret" {
						return // who looks first and opens then is fooled
					}
				}
			}
			t.Error("a naive packer was not fooled")
		})
	}
}

func TestAttack_SwappedWhileUnpacking(t *testing.T) {
	dir := tree(t, "out/", "to/d/", "d -> ../out")
	evil := stream(t, []tar.Header{
		{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755},
		{Typeflag: tar.TypeDir, Name: "./d/", Mode: 0o755},
		{Name: "./d/x", Mode: 0o644},
		{Typeflag: tar.TypeSymlink, Name: "./d/y", Linkname: "x"},
		{Typeflag: tar.TypeLink, Name: "./d/z", Linkname: "./d/x"},
	})
	spin(t, dir+"/to/d", dir+"/d")
	worked := 0
	for range raceRounds {
		if unpack(dir+"/to", evil, Options{}) == nil {
			worked++
		}
	}
	if diff := cmp.Diff([]string{}, list(t, dir+"/out")); diff != "" {
		t.Fatalf("written elsewhere (-want +got):\n%s", diff)
	}
	t.Logf("%d of %d copies met no attack", worked, raceRounds)
	for range 100 * raceRounds {
		naive(dir+"/to", evil)
		if len(list(t, dir+"/out")) > 0 {
			return
		}
	}
	t.Error("a naive unpacker was not fooled")
}

// FuzzUnpack holds that no stream panics, or writes beside the one name that it has.
func FuzzUnpack(f *testing.F) {
	for _, entries := range hostile() {
		f.Add(stream(f, entries), false)
		f.Add(stream(f, entries), true)
	}
	f.Fuzz(func(t *testing.T, text []byte, archive bool) {
		dir := tree(t, "to/", "victim=unharmed")
		_ = unpack(dir+"/to/x", text, Options{Archive: archive})
		_ = unpack(dir+"/to", text, Options{Archive: archive})
		got, err := os.ReadDir(dir)
		if err != nil || len(got) != 2 {
			t.Fatalf("%v, %v", got, err)
		}
		if text, err := os.ReadFile(dir + "/victim"); string(text) != "unharmed" {
			t.Fatalf("%q, %v", text, err)
		}
	})
}
