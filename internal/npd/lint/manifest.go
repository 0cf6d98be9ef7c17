package lint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// FromYAML returns the NPD configurations that stand as text in YAML: in the data of ConfigMaps, in lists of them, in values of Helm
// charts (settings.custom_monitor_definitions), wherever a key ends in .json. Its findings have the positions of the YAML.
// Other *.json texts, dashboards say, are left out unless they stand beside a configuration.
func FromYAML(path string, data []byte) ([]Source, error) {
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	m := manifest{path: path, data: data}
	for {
		var document yaml.Node
		err := decoder.Decode(&document)
		switch {
		case errors.Is(err, io.EOF):
			return m.sources, nil
		case err != nil && bytes.Contains(data, []byte("{{")):
			return nil, fmt.Errorf("%s: %w; render a Helm template first: helm template ... | npdctl lint -", path, err)
		case err != nil:
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		m.walk(&document)
	}
}

type manifest struct {
	path    string
	data    []byte
	sources []Source
}

// definitions is the key of deliveryhero's chart below which each text is a configuration.
const definitions = "custom_monitor_definitions"

func (m *manifest) walk(node *yaml.Node) {
	if node.Kind == yaml.MappingNode {
		m.texts(node, "")
		m.lists(node)
	}
	for i, child := range node.Content {
		if node.Kind == yaml.MappingNode && i%2 == 1 && child.Kind == yaml.MappingNode && node.Content[i-1].Value == definitions {
			m.texts(child, definitions)
			continue
		}
		m.walk(child)
	}
}

// texts takes the texts right in a mapping.
func (m *manifest) texts(mapping *yaml.Node, key string) {
	var texts []*yaml.Node
	ours := key == definitions
	for i := 0; i+1 < len(mapping.Content); i += 2 {
		text := mapping.Content[i+1]
		if text.Kind == yaml.AliasNode {
			text = text.Alias
		}
		if text.Kind != yaml.ScalarNode || !strings.HasSuffix(mapping.Content[i].Value, ".json") {
			continue
		}
		texts = append(texts, text)
		ours = ours || looksOurs(text.Value)
	}
	if !ours {
		return
	}
	for _, text := range texts {
		m.sources = append(m.sources, Source{Path: m.path, Data: []byte(text.Value), outer: m.data, offsets: offsets(m.data, text)})
	}
}

// mounted is where deliveryhero's chart puts the definitions.
const mounted = "/custom-config/"

// lists compares the settings of the chart that name files with the definitions beside them, if there are some: else they are in other values.
func (m *manifest) lists(settings *yaml.Node) {
	values := map[string]*yaml.Node{}
	for i := 0; i+1 < len(settings.Content); i += 2 {
		values[settings.Content[i].Value] = settings.Content[i+1]
	}
	if values["custom_plugin_monitors"] == nil && values["log_monitors"] == nil {
		return
	}
	defined := values[definitions]
	if defined == nil || defined.Kind != yaml.MappingNode {
		defined = &yaml.Node{}
	}
	whole := Source{Path: m.path, found: []Finding{}}
	report := func(node *yaml.Node, id, detail string) {
		whole.found = append(whole.found, Finding{Path: m.path, Line: node.Line, Column: node.Column, Trap: trap(id), Detail: detail})
	}
	files := maps.Clone(shippedPlugins)
	for i := 0; i+1 < len(defined.Content); i += 2 {
		name := defined.Content[i]
		files[mounted+name.Value] = pluginOf(defined.Content[i+1].Value)
		if strings.HasSuffix(name.Value, ".json") && !bytes.Contains(m.data, []byte(mounted+name.Value)) {
			report(name, "file-unused", name.Value)
		}
	}
	for list, custom := range map[string]bool{"custom_plugin_monitors": true, "log_monitors": false} {
		if values[list] == nil {
			continue
		}
		for _, file := range values[list].Content {
			plugin, known := files[file.Value]
			switch {
			case !known && strings.HasPrefix(file.Value, mounted) && values[definitions] != nil:
				report(file, "file-undefined", file.Value)
			case plugin != "" && (plugin == "custom") != custom:
				report(file, "list-wrong", fmt.Sprintf("%s with plugin %q in %s", file.Value, plugin, list))
			}
		}
	}
	m.sources = append(m.sources, whole)
}

// shippedPlugins are the plugins of the files in NPD's image that are named most.
var shippedPlugins = map[string]string{
	"/config/kernel-monitor.json": "kmsg", "/config/readonly-monitor.json": "kmsg",
	"/config/docker-monitor.json": "journald", "/config/systemd-monitor.json": "journald", "/config/abrt-adaptor.json": "journald",
	"/config/kernel-monitor-filelog.json": "filelog", "/config/docker-monitor-filelog.json": "filelog", "/config/disk-log-message-filelog.json": "filelog",
	"/config/custom-plugin-monitor.json": "custom", "/config/network-problem-monitor.json": "custom", "/config/iptables-mode-monitor.json": "custom",
	"/config/health-checker-kubelet.json": "custom", "/config/health-checker-containerd.json": "custom", "/config/health-checker-docker.json": "custom",
	"/config/kernel-monitor-counter.json": "custom", "/config/systemd-monitor-counter.json": "custom", "/config/docker-monitor-counter.json": "custom",
}

// pluginOf is the plugin of a configuration, "" if it cannot be told.
func pluginOf(text string) string {
	top, err := parse([]byte(text))
	if err != nil {
		return ""
	}
	return top.get("plugin").str()
}

// looksOurs says whether a text is meant as a configuration of NPD, valid or not.
func looksOurs(text string) bool {
	has := func(key string) bool { return strings.Contains(text, `"`+key+`"`) }
	return has("plugin") && (has("rules") || has("conditions") || has("pluginConfig")) || has("metricsConfigs")
}

// offsets returns where in data each byte of the text stands, and its end. Blanks are where the line breaks are that became them.
// From where the two cannot be followed on it is where the text begins.
func offsets(data []byte, text *yaml.Node) []int {
	begin := offsetOf(data, text.Line, text.Column)
	s := scalar{data: data, at: begin, text: text.Value}
	s.begin(text.Style)
	for s.step(text.Style) {
	}
	for len(s.offsets) <= len(s.text) {
		at := begin
		if len(s.offsets) == len(s.text) {
			at = s.at
		}
		s.offsets = append(s.offsets, at)
	}
	return s.offsets
}

// offsetOf is the offset of a line and a column in characters, both from 1.
func offsetOf(data []byte, line, column int) int {
	at := 0
	for ; line > 1; line-- {
		end := bytes.IndexByte(data[at:], '\n')
		if end < 0 {
			return len(data)
		}
		at += end + 1
	}
	for ; column > 1 && at < len(data); column-- {
		_, size := utf8.DecodeRune(data[at:])
		at += size
	}
	return at
}

// scalar walks over a text and what it was written as.
type scalar struct {
	data    []byte
	at      int // in data
	text    string
	offsets []int // of the text up to here
}

// begin goes to the first byte of the text: behind the line with | or >, behind the quote, behind a tag or an anchor.
func (s *scalar) begin(style yaml.Style) {
	mark := byte(0)
	switch {
	case style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0:
		mark = '\n'
	case style&yaml.DoubleQuotedStyle != 0:
		mark = '"'
	case style&yaml.SingleQuotedStyle != 0:
		mark = '\''
	default:
		for s.at < len(s.data) && (s.data[s.at] == '&' || s.data[s.at] == '!') {
			s.at += len(s.data[s.at:]) - len(bytes.TrimLeft(bytes.TrimLeftFunc(s.data[s.at:], func(c rune) bool { return !isBlank(byte(c)) }), " \t\r\n"))
		}
		return
	}
	if i := bytes.IndexByte(s.data[s.at:], mark); i >= 0 {
		s.at += i + 1
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// step takes the next byte of the text, or a run of blanks, or what an escape stands for. It is false at the end, and where what is written
// is not what was read.
func (s *scalar) step(style yaml.Style) bool {
	if len(s.offsets) >= len(s.text) || s.at >= len(s.data) {
		return false
	}
	c := s.data[s.at]
	switch {
	case isBlank(c):
		return s.blanks(style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0)
	case c == '\\' && style&yaml.DoubleQuotedStyle != 0:
		return s.escape()
	case c == '\'' && style&yaml.SingleQuotedStyle != 0:
		return s.take(2, 1)
	case isBlank(s.text[len(s.offsets)]) && style&yaml.LiteralStyle != 0:
		return s.take(0, 1) // a line break at the end that is not there
	case c != s.text[len(s.offsets)]:
		return false
	}
	return s.take(1, 1)
}

// take goes on by so many bytes as written, which are so many of the text.
func (s *scalar) take(written, meant int) bool {
	for range meant {
		s.offsets = append(s.offsets, s.at)
	}
	s.at += written
	return len(s.offsets) <= len(s.text)
}

// blanks takes a run of blanks. With a line break in it, it was written for other blanks: in a block for all that follow, else for one
// blank, or for one line break less than it has.
func (s *scalar) blanks(block bool) bool {
	end := s.at
	breaks := 0
	for end < len(s.data) && isBlank(s.data[end]) {
		if s.data[end] == '\n' {
			breaks++
		}
		end++
	}
	from := len(s.offsets)
	meant := 0
	for from+meant < len(s.text) && isBlank(s.text[from+meant]) {
		meant++
	}
	switch {
	case breaks == 0:
		meant = min(meant, end-s.at)
	case !block:
		meant = min(meant, max(1, breaks-1))
	}
	first := s.at
	if i := bytes.IndexByte(s.data[s.at:end], '\n'); i >= 0 {
		first += i
	}
	for i := range meant {
		at := end - (meant - i)
		if at < first || s.data[at] != s.text[from+i] {
			at = first
		}
		s.offsets = append(s.offsets, at)
	}
	s.at = end
	return true
}

// escape takes what a backslash in double quotes stands for.
func (s *scalar) escape() bool {
	if s.at+1 >= len(s.data) {
		return false
	}
	digits := 0
	switch s.data[s.at+1] {
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	case '\r', '\n': // joins two lines
		s.at++
		for s.at < len(s.data) && isBlank(s.data[s.at]) {
			s.at++
		}
		return true
	}
	_, size := utf8.DecodeRuneInString(s.text[len(s.offsets):])
	return s.take(min(2+digits, len(s.data)-s.at), size)
}
