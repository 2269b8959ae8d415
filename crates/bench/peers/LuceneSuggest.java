import java.io.BufferedReader;
import java.io.BufferedWriter;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.OutputStreamWriter;
import java.net.InetAddress;
import java.net.ServerSocket;
import java.net.Socket;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;

import org.apache.lucene.analysis.core.KeywordAnalyzer;
import org.apache.lucene.codecs.PostingsFormat;
import org.apache.lucene.codecs.lucene87.Lucene87Codec;
import org.apache.lucene.document.Document;
import org.apache.lucene.index.DirectoryReader;
import org.apache.lucene.index.IndexWriter;
import org.apache.lucene.index.IndexWriterConfig;
import org.apache.lucene.index.Term;
import org.apache.lucene.search.suggest.document.Completion84PostingsFormat;
import org.apache.lucene.search.suggest.document.PrefixCompletionQuery;
import org.apache.lucene.search.suggest.document.SuggestField;
import org.apache.lucene.search.suggest.document.SuggestIndexSearcher;
import org.apache.lucene.search.suggest.document.TopSuggestDocs;
import org.apache.lucene.store.Directory;
import org.apache.lucene.store.MMapDirectory;

/**
 * Lucene's completion field, which is what a completion field of Elasticsearch is made of, behind a socket: the least that lets it be asked
 * over a network. It answers lines with lines, in their order, so that whoever sends several at once need not wait.
 *
 * <p>Arguments: a folder for the index. It prints {@code port NUMBER} once it listens on loopback.
 *
 * <ul>
 *   <li>{@code L<TAB>FILE} indexes the file, lines of {@code term<TAB>count}, into one segment, and commits. Answer: {@code OK<TAB>documents}.
 *   <li>{@code G<TAB>k<TAB>prefix}: answer: {@code term<TAB>count}, as often as there are completions, all joined by tabs.
 *   <li>Anything that fails: {@code ERR<TAB>why}.
 * </ul>
 *
 * <p>A count is at most 2^31 - 1, and told as a float. It is indexed with its document and cannot be added to, so there is no record of a
 * search here: that takes a document, a refresh and a commit, for each.
 */
public final class LuceneSuggest {
    private static final String FIELD = "term";
    /** Indexing collects this much before it writes a segment. */
    private static final double BUFFER_MIB = 256;

    private final Directory directory;
    private volatile SuggestIndexSearcher searcher;

    private LuceneSuggest(Path folder) throws IOException {
        directory = new MMapDirectory(folder);
    }

    public static void main(String[] arguments) throws IOException {
        // Whoever asks it to end wants to see it end well.
        Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0)));
        LuceneSuggest server = new LuceneSuggest(Path.of(arguments[0]));
        try (ServerSocket listener = new ServerSocket(0, 1024, InetAddress.getLoopbackAddress())) {
            System.out.println("port " + listener.getLocalPort());
            while (true) {
                Socket client = listener.accept();
                Thread thread = new Thread(() -> server.serve(client));
                thread.setDaemon(true);
                thread.start();
            }
        }
    }

    private void serve(Socket client) {
        try (client) {
            client.setTcpNoDelay(true);
            var in = new BufferedReader(new InputStreamReader(client.getInputStream(), StandardCharsets.UTF_8));
            var out = new BufferedWriter(new OutputStreamWriter(client.getOutputStream(), StandardCharsets.UTF_8));
            for (String line = in.readLine(); line != null; line = in.readLine()) {
                out.write(answer(line));
                out.write('\n');
                if (!in.ready()) {
                    out.flush();
                }
            }
        } catch (IOException gone) {
            // Whoever asked has gone.
        }
    }

    private String answer(String line) {
        try {
            String[] parts = line.split("\t", 3);
            return switch (parts[0]) {
                case "L" -> "OK\t" + load(Path.of(parts[1]));
                case "G" -> complete(parts[2], Integer.parseInt(parts[1]));
                default -> "ERR\tunknown request";
            };
        } catch (IOException | RuntimeException error) {
            return "ERR\t" + error.toString().replace('\n', ' ').replace('\t', ' ');
        }
    }

    private int load(Path file) throws IOException {
        var config = new IndexWriterConfig(new KeywordAnalyzer());
        config.setRAMBufferSizeMB(BUFFER_MIB);
        config.setCodec(new Lucene87Codec() {
            private final PostingsFormat completions = new Completion84PostingsFormat();

            @Override
            public PostingsFormat getPostingsFormatForField(String field) {
                return completions;
            }
        });
        try (var writer = new IndexWriter(directory, config);
                BufferedReader lines = Files.newBufferedReader(file, StandardCharsets.UTF_8)) {
            for (String line = lines.readLine(); line != null; line = lines.readLine()) {
                if (line.isEmpty()) {
                    continue;
                }
                int tab = line.indexOf('\t');
                String term = tab < 0 ? line : line.substring(0, tab);
                long count = tab < 0 ? 1 : Long.parseLong(line.substring(tab + 1));
                var document = new Document();
                document.add(new SuggestField(FIELD, term, (int) Math.min(count, Integer.MAX_VALUE)));
                writer.addDocument(document);
            }
            writer.forceMerge(1);
            writer.commit();
        }
        searcher = new SuggestIndexSearcher(DirectoryReader.open(directory));
        // What indexing took is no part of what serving takes.
        System.gc();
        return searcher.getIndexReader().numDocs();
    }

    private String complete(String prefix, int k) throws IOException {
        var query = new PrefixCompletionQuery(new KeywordAnalyzer(), new Term(FIELD, prefix));
        TopSuggestDocs found = searcher.suggest(query, k, false);
        var text = new StringBuilder();
        for (TopSuggestDocs.SuggestScoreDoc one : found.scoreLookupDocs()) {
            if (text.length() > 0) {
                text.append('\t');
            }
            text.append(one.key).append('\t').append((long) one.score);
        }
        return text.toString();
    }
}
