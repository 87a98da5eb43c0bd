package unpack

import "io"

const (
	// aheadBuffers times aheadSize is how far a reader may run ahead: enough to
	// keep both cores busy through one large file or a run of small ones.
	aheadBuffers = 8
	aheadSize    = 1 << 20
)

// readahead reads from a slow reader in a goroutine of its own. Close stops the
// goroutine and waits for it; Read and Close belong to one goroutine.
type readahead struct {
	full chan chunk
	free chan []byte
	stop chan struct{}
	done chan struct{}
	cur  chunk
	left []byte // unread part of cur
}

// chunk is one buffer and the error that came with it, or nil.
type chunk struct {
	buf []byte
	n   int
	err error
}

func newReadahead(r io.Reader) *readahead {
	ra := &readahead{
		full: make(chan chunk, aheadBuffers), free: make(chan []byte, aheadBuffers),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	for range aheadBuffers {
		ra.free <- make([]byte, aheadSize)
	}
	go ra.fill(r)
	return ra
}

func (ra *readahead) fill(r io.Reader) {
	defer close(ra.done)
	for {
		var buf []byte
		select {
		case buf = <-ra.free:
		case <-ra.stop:
			return
		}
		n, err := readFull(r, buf)
		ra.full <- chunk{buf, n, err}
		if err != nil {
			return
		}
	}
}

// readFull is io.ReadFull but returns the reader's own error: a stream that was
// cut must not look like one that ended.
func readFull(r io.Reader, buf []byte) (n int, err error) {
	for n < len(buf) && err == nil {
		var m int
		m, err = r.Read(buf[n:])
		n += m
	}
	return n, err
}

// Read implements io.Reader. After an error it returns that error for ever.
func (ra *readahead) Read(p []byte) (int, error) {
	for len(ra.left) == 0 {
		if ra.cur.err != nil {
			return 0, ra.cur.err
		}
		if ra.cur.buf != nil {
			ra.free <- ra.cur.buf
		}
		ra.cur = <-ra.full
		ra.left = ra.cur.buf[:ra.cur.n]
	}
	n := copy(p, ra.left)
	ra.left = ra.left[n:]
	return n, nil
}

// Close ends the goroutine, which may first finish a read.
func (ra *readahead) Close() {
	close(ra.stop)
	<-ra.done
}
