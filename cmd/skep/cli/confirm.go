package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
)

// maxReply bounds an answer to a question, in bytes.
const maxReply = 64

// confirmed asks a question and reports whether the next line of the input is y or yes.
func (p *program) confirmed(ctx context.Context, question string) (bool, error) {
	fmt.Fprint(p.err, question)
	line, err := bufio.NewReader(io.LimitReader(p.input(ctx), maxReply)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	reply := strings.ToLower(strings.TrimSpace(line))
	return reply == "y" || reply == "yes", nil
}
