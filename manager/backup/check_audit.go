package backup

import (
	"bytes"

	"github.com/skep-io/skep/api"
	"github.com/skep-io/skep/internal/chain"
	"github.com/skep-io/skep/store/object"
)

// audit checks that the audit log is one chain.
func (c *checker) audit() {
	var before *api.AuditSegment
	for _, stored := range c.state.GetObjects() {
		s := stored.GetAuditSegment()
		if s == nil {
			continue
		}
		if err := chain.CheckSegment(s); err != nil {
			c.add("audit segment %s: %v", s.GetId(), err)
		}
		if s.GetId() != object.SequenceID(s.GetFirst()) {
			c.add("audit segment %s: it begins with entry %d", s.GetId(), s.GetFirst())
		}
		head := chain.Head(before)
		switch {
		case before == nil && s.GetFirst() > 1: // what came before is not kept any more
		case before == nil && !bytes.Equal(s.GetPrevious(), chain.Genesis(c.state.GetClusterId())):
			c.add("audit segment %s: the log does not begin as that of this cluster", s.GetId())
		case before != nil && (head.GetSequence()+1 != s.GetFirst() || !bytes.Equal(head.GetHash(), s.GetPrevious())):
			c.add("audit segment %s: it does not go on from entry %d", s.GetId(), head.GetSequence())
		}
		before = s
	}
}
