package logread

import (
	"time"

	"npd-plugins/internal/journalfile"
)

// journalFields are the fields that are looked at. The identifier is what entries are picked by.
var journalFields = [][]byte{identifierField, messageField, priorityField}

// OpenJournal opens journal files, and directories of them, for NewJournal. With identifiers only entries that have one of them are
// read. Watch is journalfile.Query's.
func OpenJournal(identifiers []string, since time.Time, watch func(time.Time) error, paths ...string) (*journalfile.Journal, error) {
	q := journalfile.Query{Match: identifiers, Since: since, MaxValue: MaxMessage + 1, Watch: watch}
	for _, name := range journalFields {
		q.Fields = append(q.Fields, string(name))
	}
	return journalfile.Open(q, paths...)
}

// NewJournal reads what OpenJournal opened.
func NewJournal(from *journalfile.Journal) *Reader { return &Reader{Format: Journal, journal: from} }

// nextJournal takes in the next entry. Of several messages the last one counts, as for NPD.
func (r *Reader) nextJournal(e *Entry) error {
	if err := r.journal.Next(&r.found); err != nil {
		return err
	}
	r.message, r.identifiers = r.message[:0], r.identifiers[:0]
	for _, f := range r.found.Fields {
		r.field(e, journalFields[f.Name], f.Value)
	}
	e.Message, e.Identifiers, e.micros = r.message, r.identifiers, r.found.Realtime
	return nil
}
