-- The tables that the statements of reads.txt read, on both flavours.
CREATE TABLE users (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, name VARCHAR(60) NOT NULL, email VARCHAR(120), age INT, active TINYINT(1) NOT NULL DEFAULT 1,
  balance DECIMAL(12,2) NOT NULL DEFAULT 0, bio TEXT, attributes JSON, created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
  updated_at TIMESTAMP NULL, UNIQUE KEY email_key (email), KEY name_key (name), KEY created_key (created_at), FULLTEXT KEY bio_key (bio)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE orders (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, user_id INT NOT NULL, status VARCHAR(20) NOT NULL DEFAULT 'new', total DECIMAL(12,2) NOT NULL DEFAULT 0,
  placed_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP, note VARCHAR(200), KEY user_key (user_id), KEY placed_key (placed_at)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE order_items (
  order_id INT NOT NULL, product_id INT NOT NULL, quantity INT NOT NULL DEFAULT 1, price DECIMAL(12,2) NOT NULL DEFAULT 0,
  PRIMARY KEY (order_id, product_id), KEY product_key (product_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE products (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, sku VARCHAR(40), title VARCHAR(100) NOT NULL, category_id INT, price DECIMAL(12,2) NOT NULL DEFAULT 0,
  flags SET('new','sale','gone') NOT NULL DEFAULT '', size ENUM('s','m','l') NULL, picture BLOB, details JSON, FULLTEXT KEY title_key (title)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE categories (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, parent_id INT NULL, name VARCHAR(60) NOT NULL, KEY parent_key (parent_id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE sbtest1 (
  id INT NOT NULL AUTO_INCREMENT PRIMARY KEY, k INT NOT NULL DEFAULT 0, c CHAR(120) NOT NULL DEFAULT '', pad CHAR(60) NOT NULL DEFAULT '', KEY k_1 (k)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE places (id INT NOT NULL PRIMARY KEY, name VARCHAR(60), spot GEOMETRY NOT NULL) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE logs (
  id INT NOT NULL, logged_on DATE NOT NULL, level VARCHAR(10), message TEXT, PRIMARY KEY (id, logged_on)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 PARTITION BY RANGE (YEAR(logged_on)) (PARTITION p2025 VALUES LESS THAN (2026), PARTITION p2026 VALUES LESS THAN (2027));
CREATE TABLE wp_posts (
  ID BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, post_author BIGINT UNSIGNED NOT NULL DEFAULT 0, post_date DATETIME NOT NULL DEFAULT '2026-01-01 00:00:00',
  post_title TEXT, post_status VARCHAR(20) NOT NULL DEFAULT 'publish', post_name VARCHAR(200) NOT NULL DEFAULT '', post_type VARCHAR(20) NOT NULL DEFAULT 'post', post_parent BIGINT UNSIGNED NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE wp_postmeta (meta_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, post_id BIGINT UNSIGNED NOT NULL DEFAULT 0, meta_key VARCHAR(191), meta_value LONGTEXT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE wp_options (option_id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, option_name VARCHAR(191) NOT NULL DEFAULT '', option_value LONGTEXT NOT NULL, autoload VARCHAR(20) NOT NULL DEFAULT 'yes') ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE TABLE `größen` (id INT NOT NULL PRIMARY KEY, `länge` INT, `for` INT, `lock` INT) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4;
CREATE VIEW active_users AS SELECT id, name, email FROM users WHERE active = 1;
INSERT INTO users (id, name, email, age, bio, attributes) VALUES (1, 'Ann', 'ann@example.com', 30, 'likes trains', '{"tags": ["a", "b"], "city": "Ulm", "n": 3}'), (2, 'Bob', NULL, 41, NULL, '{"tags": [], "city": "Bonn"}');
INSERT INTO categories (id, parent_id, name) VALUES (1, NULL, 'all'), (2, 1, 'rails'), (3, 1, 'points');
INSERT INTO products (id, sku, title, category_id, price, flags, size, details) VALUES (1, 'r1', 'rail', 2, 9.5, 'new', 'm', '{"w": 1}'), (2, 'p1', 'point', 3, 99, 'sale,new', 'l', NULL);
INSERT INTO orders (id, user_id, status, total) VALUES (1, 1, 'paid', 108.5), (2, 2, 'new', 9.5);
INSERT INTO order_items (order_id, product_id, quantity, price) VALUES (1, 1, 1, 9.5), (1, 2, 1, 99), (2, 1, 1, 9.5);
INSERT INTO places (id, name, spot) VALUES (1, 'a', ST_GeomFromText('POINT(1 1)')), (2, 'b', ST_GeomFromText('POLYGON((0 0,0 3,3 3,3 0,0 0))'));
INSERT INTO logs (id, logged_on, level, message) VALUES (1, '2025-05-01', 'info', 'up'), (2, '2026-05-01', 'warn', 'slow');
INSERT INTO sbtest1 (id, k, c, pad) VALUES (1, 5, 'c', 'p'), (2, 6, 'd', 'q');
