package vfs

import (
	"bytes"
	"slices"
)

// pageSize is the unit in which contents are shared: that of the kernel, a multiple of a sector.
const pageSize = 4096

// page is never changed once it is part of a content. A nil one is all zeros, as are most of a segment of the log.
type page [pageSize]byte

var zeroPage page

// content is what a file holds. Copies made by clone share its pages, so that a disk with segments of megabytes can be synced and can
// crash at every write. What is in its last page beyond the size is zeros.
type content struct {
	size  int
	pages []*page
}

func (c *content) clone() content { return content{c.size, slices.Clone(c.pages)} }

// write puts bytes at an offset; what they leave out between the end and the offset becomes zeros.
func (c *content) write(p []byte, offset int) {
	c.grow(offset + len(p))
	for len(p) > 0 {
		at := offset % pageSize
		n := min(len(p), pageSize-at)
		c.pages[offset/pageSize] = c.pages[offset/pageSize].with(p[:n], at)
		p, offset = p[n:], offset+n
	}
}

func (c *content) grow(size int) {
	if size <= c.size {
		return
	}
	c.size = size
	if more := (size+pageSize-1)/pageSize - len(c.pages); more > 0 {
		c.pages = append(c.pages, make([]*page, more)...)
	}
}

// read copies what there is from an offset on, and returns how much that was.
func (c *content) read(p []byte, offset int) (n int) {
	p = p[:max(0, min(len(p), c.size-offset))]
	for n < len(p) {
		at := (offset + n) % pageSize
		from := &zeroPage
		if there := c.pages[(offset+n)/pageSize]; there != nil {
			from = there
		}
		n += copy(p[n:], from[at:])
	}
	return n
}

// with returns a page that has other bytes at a place.
func (p *page) with(change []byte, at int) *page {
	if p == nil && isZero(change) {
		return nil
	}
	var changed page
	if p != nil {
		changed = *p
	}
	copy(changed[at:], change)
	return &changed
}

// isZero reports whether up to a page of bytes is zeros.
func isZero(p []byte) bool { return bytes.Equal(p, zeroPage[:len(p)]) }
