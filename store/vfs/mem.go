package vfs

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// sector is the unit that a disk writes atomically.
const sector = 512

// Mem is a file system in memory that knows what of it would survive a crash.
type Mem struct {
	mu    sync.Mutex
	files map[string]*inode // by cleaned path, as programs see them
	// durable is what the directories on disk say; changes are what they say since their last SyncDir, oldest first.
	durable map[string]*inode
	changes []nameChange
	dirs    map[string]bool
	onWrite func()
}

// nameChange is a change of a directory that is not durable yet.
type nameChange struct {
	dir      string
	from, to string // a removal has no to, a creation no from
	node     *inode
}

// inode is a file without its names.
type inode struct {
	perm    fs.FileMode
	data    content // as programs see it
	synced  content // as of the last Sync
	pending []write // since then
	memfd   *os.File
}

// write is a change of a file's content. An offset of -1 is a truncation.
type write struct {
	offset int
	data   content
}

// write changes what programs see.
func (n *inode) write(p []byte, offset int) {
	n.data.write(p, offset)
	w := write{offset: offset}
	w.data.write(p, 0)
	n.pending = append(n.pending, w)
}

// sync makes all pending writes durable.
func (n *inode) sync() {
	if len(n.pending) > 0 {
		n.synced = n.data.clone()
	}
	n.pending = nil
}

// NewMem returns an empty file system.
func NewMem() *Mem {
	return &Mem{files: map[string]*inode{}, durable: map[string]*inode{}, dirs: map[string]bool{}}
}

// OnWrite makes Mem call fn after every operation that changes something, which is where a test may take a Crash. fn runs
// without locks, in the goroutine of the operation. Call it before the file system is used.
func (m *Mem) OnWrite(fn func()) { m.onWrite = fn }

// Checkpoint calls what OnWrite was given, between two operations.
func (m *Mem) Checkpoint() { m.changed() }

func (m *Mem) changed() {
	if m.onWrite != nil {
		m.onWrite()
	}
}

// Close frees the files that OpenOS gave out. The file system must not be used any more.
func (m *Mem) Close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.files {
		if n.memfd != nil {
			n.memfd.Close()
			n.memfd = nil
		}
	}
}

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

// Create makes a new file, or empties an old one.
func (m *Mem) Create(name string, perm fs.FileMode) (File, error) {
	name = filepath.Clean(name)
	m.mu.Lock()
	if !m.dirs[filepath.Dir(name)] {
		m.mu.Unlock()
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	n := m.files[name]
	if n == nil {
		n = &inode{perm: perm}
		m.files[name] = n
		m.changes = append(m.changes, nameChange{dir: filepath.Dir(name), to: name, node: n})
	}
	n.perm, n.data = perm, content{}
	n.pending = append(n.pending, write{offset: -1})
	m.mu.Unlock()
	m.changed()
	return &memFile{fs: m, name: name, node: n, writing: true}, nil
}

// Open opens a file for reading.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.files[filepath.Clean(name)]
	if n == nil || n.memfd != nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFile{fs: m, name: name, node: n}, nil
}

// OpenFixed opens a file for writing in place.
func (m *Mem) OpenFixed(name string) (FixedFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.files[filepath.Clean(name)]
	if n == nil || n.memfd != nil {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	return &memFixed{fs: m, name: name, node: n}, nil
}

// OpenOS gives a real file that lives in memory only (a memfd). The caller closes it.
func (m *Mem) OpenOS(name string, flag int, perm fs.FileMode) (*os.File, error) {
	name = filepath.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.files[name]
	if n == nil {
		if flag&os.O_CREATE == 0 || !m.dirs[filepath.Dir(name)] {
			return nil, pathError("open", name, fs.ErrNotExist)
		}
		memfd, err := newMemfd(name)
		if err != nil {
			return nil, err
		}
		n = &inode{perm: perm, memfd: memfd}
		m.files[name] = n
		m.changes = append(m.changes, nameChange{dir: filepath.Dir(name), to: name, node: n})
	}
	if n.memfd == nil {
		return nil, pathError("open", name, errors.ErrUnsupported)
	}
	return os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", n.memfd.Fd()), flag&^os.O_CREATE, perm)
}

func newMemfd(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(filepath.Base(name), unix.MFD_CLOEXEC)
	if err != nil {
		return nil, pathError("memfd_create", name, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Rename moves a file over another, atomically.
func (m *Mem) Rename(from, to string) error {
	from, to = filepath.Clean(from), filepath.Clean(to)
	m.mu.Lock()
	n := m.files[from]
	if n == nil || !m.dirs[filepath.Dir(to)] {
		m.mu.Unlock()
		return pathError("rename", from, fs.ErrNotExist)
	}
	delete(m.files, from)
	m.files[to] = n
	m.changes = append(m.changes, nameChange{dir: filepath.Dir(to), from: from, to: to, node: n})
	m.mu.Unlock()
	m.changed()
	return nil
}

// Remove removes a file.
func (m *Mem) Remove(name string) error {
	name = filepath.Clean(name)
	m.mu.Lock()
	if m.files[name] == nil {
		m.mu.Unlock()
		return pathError("remove", name, fs.ErrNotExist)
	}
	delete(m.files, name)
	m.changes = append(m.changes, nameChange{dir: filepath.Dir(name), from: name})
	m.mu.Unlock()
	m.changed()
	return nil
}

// MkdirAll makes a directory and its parents, durably: losing those is not modelled.
func (m *Mem) MkdirAll(name string, _ fs.FileMode) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name = filepath.Clean(name); !m.dirs[name]; name = filepath.Dir(name) {
		m.dirs[name] = true
	}
	return nil
}

// ReadDir returns the names in a directory, sorted.
func (m *Mem) ReadDir(name string) ([]string, error) {
	name = filepath.Clean(name)
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.dirs[name] {
		return nil, pathError("open", name, fs.ErrNotExist)
	}
	var names []string
	for path := range m.files {
		if filepath.Dir(path) == name {
			names = append(names, filepath.Base(path))
		}
	}
	slices.Sort(names)
	return names, nil
}

// Stat describes a file or a directory.
func (m *Mem) Stat(name string) (fs.FileInfo, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.files[filepath.Clean(name)]
	switch {
	case n != nil:
		return memInfo{name: filepath.Base(name), size: int64(n.data.size), mode: n.perm}, nil
	case m.dirs[filepath.Clean(name)]:
		return memInfo{name: filepath.Base(name), mode: fs.ModeDir | 0o700}, nil
	}
	return nil, pathError("stat", name, fs.ErrNotExist)
}

// SyncDir makes the names in a directory durable.
func (m *Mem) SyncDir(name string) error {
	name = filepath.Clean(name)
	m.mu.Lock()
	rest := m.changes[:0:0]
	for _, c := range m.changes {
		if c.dir == name {
			c.do(m.durable)
		} else {
			rest = append(rest, c)
		}
	}
	m.changes = rest
	m.mu.Unlock()
	m.changed()
	return nil
}

func (c nameChange) do(names map[string]*inode) {
	if c.from != "" {
		delete(names, c.from)
	}
	if c.to != "" {
		names[c.to] = c.node
	}
}

// Crash returns what the disk could hold if power were lost now. With a nil random, all that is not synced is lost; otherwise
// random decides which sectors and names survive. The file system itself is not changed.
func (m *Mem) Crash(random *rand.Rand) (*Mem, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	after := NewMem()
	for dir := range m.dirs {
		after.dirs[dir] = true
	}
	names := map[string]*inode{}
	for name, n := range m.durable {
		names[name] = n
	}
	if random != nil {
		for _, c := range m.changes[:random.IntN(len(m.changes)+1)] {
			c.do(names)
		}
	}
	order := make([]string, 0, len(names))
	for name := range names {
		order = append(order, name)
	}
	slices.Sort(order) // so that the same random gives the same crash
	for _, name := range order {
		n, err := names[name].crash(name, random)
		if err != nil {
			return nil, err
		}
		after.files[name], after.durable[name] = n, n
	}
	return after, nil
}

func (n *inode) crash(name string, random *rand.Rand) (*inode, error) {
	if n.memfd != nil {
		memfd, err := newMemfd(name)
		if err != nil {
			return nil, err
		}
		if _, err := io.Copy(memfd, io.NewSectionReader(n.memfd, 0, 1<<62)); err != nil {
			return nil, errors.Join(err, memfd.Close())
		}
		return &inode{perm: n.perm, memfd: memfd}, nil
	}
	data := n.synced.clone()
	if random != nil {
		for _, w := range n.pending {
			w.tear(&data, random)
		}
	}
	return &inode{perm: n.perm, data: data, synced: data.clone()}, nil
}

// tear applies some of the sectors of a write.
func (w write) tear(data *content, random *rand.Rand) {
	if w.offset < 0 { // a truncation
		if random.IntN(2) == 0 {
			*data = content{}
		}
		return
	}
	var part [sector]byte
	for start := 0; start < w.data.size; {
		end := min(w.data.size, (w.offset+start)/sector*sector+sector-w.offset)
		if random.IntN(4) > 0 {
			w.data.read(part[:end-start], start)
			data.write(part[:end-start], w.offset+start)
		}
		start = end
	}
}

// memFile is an open file of a Mem.
type memFile struct {
	fs       *Mem
	name     string
	node     *inode
	writing  bool
	position int
	closed   bool
}

func (f *memFile) Read(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if f.closed {
		return 0, pathError("read", f.name, fs.ErrClosed)
	}
	if f.position >= f.node.data.size {
		return 0, io.EOF
	}
	n := f.node.data.read(p, f.position)
	f.position += n
	return n, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	f.fs.mu.Lock()
	if f.closed || !f.writing {
		f.fs.mu.Unlock()
		return 0, pathError("write", f.name, fs.ErrClosed)
	}
	f.node.write(p, f.node.data.size)
	f.fs.mu.Unlock()
	f.fs.changed()
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.fs.mu.Lock()
	f.node.sync()
	f.fs.mu.Unlock()
	f.fs.changed()
	return nil
}

func (f *memFile) Close() error {
	f.closed = true
	return nil
}

// memFixed is an open FixedFile of a Mem.
type memFixed struct {
	fs     *Mem
	name   string
	node   *inode
	closed bool
}

func (f *memFixed) WriteAt(p []byte, offset int64) (int, error) {
	f.fs.mu.Lock()
	if f.closed || offset < 0 || offset+int64(len(p)) > int64(f.node.data.size) {
		f.fs.mu.Unlock()
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	f.node.write(p, int(offset))
	f.fs.mu.Unlock()
	f.fs.changed()
	return len(p), nil
}

func (f *memFixed) Sync() error {
	f.fs.mu.Lock()
	f.node.sync()
	f.fs.mu.Unlock()
	f.fs.changed()
	return nil
}

func (f *memFixed) Close() error {
	f.closed = true
	return nil
}

// memInfo describes a file of a Mem.
type memInfo struct {
	name string
	size int64
	mode fs.FileMode
}

func (i memInfo) Name() string       { return i.name }
func (i memInfo) Size() int64        { return i.size }
func (i memInfo) Mode() fs.FileMode  { return i.mode }
func (i memInfo) ModTime() time.Time { return time.Time{} }
func (i memInfo) IsDir() bool        { return i.mode.IsDir() }
func (i memInfo) Sys() any           { return nil }

// Contains reports whether any file, durable or not, contains the bytes: for tests that search for what must not be there.
func (m *Mem) Contains(needle []byte) (bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, n := range m.files {
		data := make([]byte, n.data.size)
		n.data.read(data, 0)
		if n.memfd != nil {
			var err error
			if data, err = io.ReadAll(io.NewSectionReader(n.memfd, 0, 1<<62)); err != nil {
				return false, err
			}
		}
		if bytes.Contains(data, needle) {
			return true, nil
		}
	}
	return false, nil
}
