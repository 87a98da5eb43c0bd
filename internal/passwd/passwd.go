// Package passwd reads files such as /etc/passwd and /etc/group of images. Those are not trusted: what is read is bounded, and what is not
// as it should be is passed over, as libc does.
package passwd

import (
	"bufio"
	"bytes"
	"path"
	"strconv"
	"strings"
)

// MaxFile is the most bytes of a file that count, and maxLine those of a line in it: real files have a few kilobytes.
const (
	MaxFile = 1 << 20
	maxLine = 16 << 10
)

// Each calls f with the fields of each line that has at least n, until f returns false.
func Each(data []byte, n int, f func(fields []string) bool) {
	if len(data) > MaxFile {
		data = data[:MaxFile]
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		if fields := strings.Split(strings.TrimSpace(lines.Text()), ":"); len(fields) >= n && fields[0] != "" && fields[0][0] != '#' {
			if !f(fields) {
				return
			}
		}
	}
}

// noHome is the home directory of who has none.
const noHome = "/"

// HomeIn returns the home directory in a line of /etc/passwd, or / where it names none that a process could have.
func HomeIn(fields []string) string {
	const home = 5
	if len(fields) <= home || !path.IsAbs(fields[home]) || strings.ContainsRune(fields[home], 0) {
		return noHome
	}
	return fields[home]
}

// Home returns the home directory of a user by the text of an /etc/passwd: that of the first line with the id, or /.
func Home(data []byte, uid uint32) string {
	found := noHome
	Each(data, 3, func(f []string) bool {
		id, err := strconv.ParseUint(f[2], 10, 32)
		if err != nil || uint32(id) != uid {
			return true
		}
		found = HomeIn(f)
		return false
	})
	return found
}
